package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("hello from Go")
	for i, argument := range os.Args[1:] {
		fmt.Printf("argument %d: %s\n", i+1, argument)
	}
}
