package schedule_test

import (
	"fmt"

	"github.com/steerage/steerage/engine/schedule"
)

// Two requests share a batch of a model that counts: the token after n is n+1.
func Example() {
	core, err := schedule.New(schedule.DefaultConfig(2048, 8))
	if err != nil {
		panic(err)
	}
	for _, r := range []schedule.Request{
		{ID: 1, Prompt: []int32{8, 9, 10}, MaxTokens: 3},
		{ID: 2, Prompt: []int32{70}, MaxTokens: 100, StopIDs: []int32{72}},
	} {
		if err := core.Submit(r); err != nil {
			panic(err)
		}
	}
	for {
		plan, ok := core.Next()
		if !ok {
			break
		}
		var result schedule.Result
		for _, row := range plan.Rows {
			if row.Last {
				result.Tokens = append(result.Tokens, row.Tokens[len(row.Tokens)-1]+1)
			}
		}
		for _, row := range plan.Slots {
			result.Tokens = append(result.Tokens, row.Token+1)
		}
		fmt.Println(plan.Kind)
		for _, e := range core.Done(plan, result) {
			fmt.Printf("  request %d: token %d, finish: %s\n", e.ID, e.Token, e.Finish)
		}
	}
	// Output:
	// prefill
	//   request 1: token 11, finish: none
	//   request 2: token 71, finish: none
	// decode
	//   request 1: token 12, finish: none
	//   request 2: token 72, finish: stop
	// decode
	//   request 1: token 13, finish: length
}
