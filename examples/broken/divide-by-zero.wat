;; Divides by zero: an ordinary trap, two named functions deep.
(module
  (memory (export "memory") 1)
  (func $divide_by (param $divisor i32) (result i32)
    i32.const 1
    local.get $divisor
    i32.div_s)
  (func $_start (export "_start")
    i32.const 0
    call $divide_by
    drop))
