;; A core module that needs a function nobody provides.
(module
  (import "database" "open" (func $open (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    call $open
    drop))
