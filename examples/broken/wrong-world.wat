;; A valid component that nobody can run: what it exports belongs to no world
;; that wisp knows.
(component
  (core module $m
    (func (export "add") (param i32 i32) (result i32)
      local.get 0
      local.get 1
      i32.add))
  (core instance $i (instantiate $m))
  (func $add (param "a" s32) (param "b" s32) (result s32)
    (canon lift (core func $i "add")))
  (instance $calculator (export "add" (func $add)))
  (export "example:calculator/calculate@1.0.0" (instance $calculator)))
