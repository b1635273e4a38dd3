;; Takes tables without end: grows one until it is refused, as it must be, and
;; then ends with 7.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table $t 1 funcref)
  (func (export "_start")
    (loop $more
      (br_if $more
        (i32.ne
          (table.grow $t (ref.null func) (i32.const 65536))
          (i32.const -1))))
    (call $exit (i32.const 7))))
