;; A command that needs an interface nobody provides.
(component
  (import "example:database/store@1.0.0" (instance $store
    (export "open" (func (result u32)))))
  (core func $open (canon lower (func $store "open")))
  (core module $m
    (import "store" "open" (func $open (result i32)))
    (func (export "run") (result i32)
      call $open
      drop
      i32.const 0))
  (core instance $i (instantiate $m
    (with "store" (instance (export "open" (func $open))))))
  (func $run (result (result))
    (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
