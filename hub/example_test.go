package hub_test

import (
	"context"
	"fmt"

	"github.com/steerage/steerage/hub"
)

func ExampleParse() {
	for _, name := range []string{"Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B@refs/pr/3", "../secrets"} {
		ref, err := hub.Parse(name)
		fmt.Printf("%s, %v\n", ref, err)
	}
	// Output:
	// Qwen/Qwen3-0.6B, <nil>
	// Qwen/Qwen3-0.6B@refs/pr/3, <nil>
	// , "../secrets": want org/name of letters, digits, '-', '_' and '.'
}

func ExampleClient_Pull() {
	ref, err := hub.Parse("Qwen/Qwen3-0.6B")
	if err != nil {
		panic(err)
	}
	client, err := hub.FromEnv()
	if err != nil {
		panic(err)
	}
	client.Progress = func(p hub.Progress) { fmt.Printf("\r%d of %d bytes", p.Done, p.Total) }
	snapshot, err := client.Pull(context.Background(), ref, hub.Model) // no request if it is there
	if err != nil {
		panic(err)
	}
	fmt.Println(snapshot.Folder)
}
