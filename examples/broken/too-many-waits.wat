;; Waits for ever, as often as it can without waiting for any of that: until it is
;; ended, as it must be.
(component
  (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
    (export "wait-for" (func async (param "how-long" u64)))))
  (core func $wait (canon lower (func $clock "wait-for") async))
  (core module $m
    (import "" "wait" (func $wait (param i64) (result i32)))
    (func (export "run") (result i32)
      (loop $more
        (drop (call $wait (i64.const 1000000000000000)))
        (br $more))
      (unreachable)))
  (core instance $i (instantiate $m
    (with "" (instance (export "wait" (func $wait))))))
  (func $run async (result (result)) (canon lift (core func $i "run")))
  (instance $interface (export "run" (func $run)))
  (export "wasi:cli/run@0.3.0" (instance $interface)))
