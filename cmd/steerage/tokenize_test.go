package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoneSurrogate(t *testing.T) {
	for in, want := range map[string]int{
		`"plain"`:                     -1,
		`"\ud83d\ude00"`:              -1,
		`"\uD83D\uDE00 \uD83D\uDE00"`: -1,
		`"\\ud83d"`:                   -1,
		`"\\\ud83d"`:                  3,
		`"\ud83d"`:                    1,
		`"\uDE00"`:                    1,
		`"a\ud9abb"`:                  2,
		`"\ud83d\ud83d\ude00"`:        1,
		`"\ud83d\\ude00"`:             1,
		`"\ud7ff\ue000"`:              -1,
		`"\ud83`:                      -1, // not JSON: encoding/json says so
		`\`:                           -1,
	} {
		require.Equal(t, want, loneSurrogate([]byte(in)), in)
	}
}

func FuzzAnswerLine(f *testing.F) {
	for _, s := range []string{
		`{"text":"Hello"}`, `{"text":"","add_special_tokens":false}`, `{"ids":[1,403,99999999]}`, `{"ids":[-1]}`, `{"ids":[null]}`,
		`{"ids":[1e3]}`, `{"ids":null}`, `{"text":"\ud83d"}`, `{"text":1}`, `[]`, `null`, ``, `{`, "{\"text\":\"\xff\"}", `{"text":"a","ids":[]}`,
	} {
		f.Add([]byte(s))
	}
	tok := demoTokenizer(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := answerLine(tok, data)
		if err != nil {
			return
		}
		out, err := json.Marshal(answer)
		require.NoError(t, err)
		require.NotContains(t, string(out), "null}")
		if ids, ok := answer.(idsLine); ok { // what Encode gives, Decode takes
			_, err := tok.Decode(ids.IDs, false)
			require.NoError(t, err)
		}
	})
}
