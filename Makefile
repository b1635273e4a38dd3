.PHONY: examples
examples:
	@examples/build.sh
