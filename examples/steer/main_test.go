package main

import (
	"context"
	"log"
	"os"
)

func Example() {
	if err := run(context.Background(), os.Stdout, "../../cmd/steerage/demo/stories260k", "go"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// unsteered: One day, Tom went to the park. He saw a big box. He wanted to play with it. He wanted to play with it. He wanted to play with the
	// happy: One day, Tom went to the park. He saw a big flower with lots of flowers. Anna was very happy. She was very
	//   moved 44 of 44 tokens by 2.3 on average
	// sad: One day, Tom went to the park. He saw a big broken toy car. He wanted to play with it. He wanted to play with his toy
	//   moved 44 of 44 tokens by 2.3 on average
}
