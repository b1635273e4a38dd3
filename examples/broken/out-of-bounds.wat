;; Reads past the end of its memory: an ordinary trap, two named functions deep.
(module
  (memory (export "memory") 1)
  (func $read_past_the_end (result i32)
    i32.const 65536
    i32.load)
  (func $_start (export "_start")
    call $read_past_the_end
    drop))
