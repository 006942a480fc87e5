package steering

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPositions(t *testing.T) {
	ids := []int32{1, 5, 6, 7, 8, 9, 9} // the first four are the prompt
	const promptLen = 4
	for _, c := range []struct{ text, want string }{ // want: x where it acts
		{"all", "xxxxxxx"},
		{"prompt", "xxxx..."},
		{"response", "....xxx"},
		{"prompt+response", "xxxxxxx"},
		{"prompt/1..3", ".xx...."},
		{"prompt/-2..", "..xx..."},
		{"prompt/..-1", "xxx...."},
		{"prompt/-9..2", "xx....."},
		{"prompt/1..-1", ".xx...."},
		{"prompt/2..-3", "......."},
		{"prompt/3..90", "...x..."},
		{"response/1..", ".....xx"},
		{"response/..2", "....xx."},
		{"all=9", ".....xx"},
		{"prompt=1,9", "x......"},
		{"response/..2=9", ".....x."},
		{"all-prompt/0..1", ".xxxxxx"},
		{"all-response=9", "xxxxx.."},
		{"prompt/-2..+response/1..2-all=6", "...x.x."},
		{"all-prompt-response", "......."},
		{"-prompt+all", "....xxx"}, // order does not matter: exclusions win
		{"prompt/-1..+prompt/0..1", "x..x..."},
	} {
		p, err := ParsePositions(c.text)
		require.NoError(t, err, c.text)
		got := ""
		for i, id := range ids {
			got += map[bool]string{true: "x", false: "."}[p.Mask(i, promptLen, id)]
		}
		require.Equal(t, c.want, got, c.text)
		again, err := ParsePositions(p.String())
		require.NoError(t, err, p.String())
		require.Equal(t, p, again)
	}
	require.True(t, Positions(nil).Mask(3, 1, 2), "no positions are all")
	require.Equal(t, "all", Positions(nil).String())
}

func TestParsePositionsErrors(t *testing.T) {
	for text, want := range hostilePositions {
		_, err := ParsePositions(text)
		require.ErrorContains(t, err, want, text)
	}
}

var hostilePositions = map[string]string{
	"":                               "it is empty",
	"+":                              "it is empty",
	"all+":                           "it is empty",
	"all-":                           "it is empty",
	"all++prompt":                    "it is empty",
	"-":                              "it is empty",
	"-prompt":                        "no clause includes anything",
	"every":                          `"every" is none of all, prompt, response`,
	"All":                            "none of",
	"all/0..4":                       "a window needs prompt or response",
	"prompt/4..4":                    "the window is empty",
	"prompt/-4..-4":                  "the window is empty",
	"prompt/-4..0":                   "the window is empty",
	"prompt/..0":                     "the window is empty",
	"response/5..2":                  "the window is empty",
	"response/-4..":                  "cannot count from its end",
	"response/..-1":                  "cannot count from its end",
	"prompt/":                        "is not LO..HI",
	"prompt/3":                       "is not LO..HI",
	"prompt/a..b":                    `"a" is not a number`,
	"prompt/1..2..3":                 "is not a number",
	"prompt/0..99999999999999999999": "is not a number in range",
	"prompt/0..9223372036854775807":  "is not a number in range",
	"all=":                           `"" is not a token id`,
	"all=1,":                         `"" is not a token id`,
	"all=-1":                         `"-1" is not a token id`,
	"all=2147483648":                 "is not a token id",
	"all=x":                          `"x" is not a token id`,
	"all prompt":                     "is none of",
	"\x00":                           "is none of",
}

func TestPositionsValidate(t *testing.T) {
	for want, p := range map[string]Positions{
		"no clause includes":     {},
		"phase 9 is none of":     {{Phase: 9}},
		"no token ids":           {{Phase: InPrompt, Tokens: []int32{}}},
		"token id -3":            {{Phase: InPrompt, Tokens: []int32{-3}}},
		"the window is empty":    {{Phase: InPrompt, Window: &Window{}}},
		"out of range":           {{Phase: InPrompt, Window: &Window{Lo: -1 << 40, Hi: End}}},
		"no clause includes any": {{Phase: InPrompt, Exclude: true}},
	} {
		require.ErrorContains(t, p.Validate(), want)
	}
}

// FuzzParsePositions: no text panics; what is accepted prints as text that means the same.
func FuzzParsePositions(f *testing.F) {
	for text := range hostilePositions {
		f.Add(text)
	}
	for _, text := range somePositions {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePositions(text)
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		again, err := ParsePositions(p.String())
		require.NoError(t, err, "%q", p.String())
		require.Equal(t, p, again)
		p.Mask(3, 2, 1)
	})
}
