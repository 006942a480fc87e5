package chat

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExpressions: thousands of small templates mean what they mean to jinja2. What jinja2 renders is rendered the same
// or refused as not supported, and what it fails on fails.
func TestExpressions(t *testing.T) {
	var vars map[string]any
	var same, bothFail, refused, wrong int
	readLines(t, "testdata/expressions.jsonl.gz", func(data []byte) {
		if vars == nil {
			var raw map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(data, &raw))
			vars = map[string]any{}
			for k, v := range raw {
				vars[k] = v
			}
			return
		}
		var c []string
		require.NoError(t, json.Unmarshal(data, &c))
		text, err := renderOnce(c[0], vars)
		switch {
		case err == nil && len(c) == 2 && text == c[1]:
			same++
		case err != nil && len(c) == 1:
			bothFail++
		case err != nil && len(c) == 2 && isRefusal(err):
			refused++
			t.Logf("refused: %s: %v", c[0], err)
		default:
			if wrong++; wrong <= 100 {
				t.Errorf("%q: want %q, have %q, %v", c[0], c[1:], text, err)
			}
		}
	})
	t.Logf("%d equal, %d fail in both, %d refused, %d wrong", same, bothFail, refused, wrong)
	require.Positive(t, same)
	require.Zero(t, wrong)
	require.Less(t, refused*50, same, "what is supported shrank")
}

func renderOnce(template string, vars map[string]any) (string, error) {
	tmpl, err := New(template, nil)
	if err != nil {
		return "", err
	}
	return tmpl.Render(Conversation{
		Messages:            []Message{{Role: "user", Content: "Hi"}},
		AddGenerationPrompt: true,
		Kwargs:              vars,
		Now:                 referenceTime,
	})
}

// isRefusal says whether an error is of something that this package leaves out on purpose.
func isRefusal(err error) bool {
	for _, s := range []string{"not supported", "can only be printed"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}
