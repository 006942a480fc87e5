package pjrt

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// program puts a signature into the text that go-xla prints around it.
func program(signature string) string {
	return "module @step attributes {stablehlo.num_replicas = 1, stablehlo.num_partitions = 1} {\n  func.func @main" +
		signature + " {\n    \"stablehlo.return\"(%1) : (tensor<4xf32>) -> ()\n  }\n}\n"
}

func TestRewriteAliases(t *testing.T) {
	tests := []struct {
		name, in, want string // want "" means unchanged
		aliases        int
	}{
		{"one of two", "(%alias_0__k: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32>",
			"(%alias_0__k: tensor<4xf32> {tf.aliasing_output = 0 : i32}, %y: tensor<4xf32>) -> tensor<4xf32>", 1},
		{"several, out of order", "(%alias_1__k: tensor<4xf32>, %alias_0__v: tensor<2x3xbf16>) -> (tensor<2x3xbf16>, tensor<4xf32>)",
			"(%alias_1__k: tensor<4xf32> {tf.aliasing_output = 1 : i32}, %alias_0__v: tensor<2x3xbf16> {tf.aliasing_output = 0 : i32})" +
				" -> (tensor<2x3xbf16>, tensor<4xf32>)", 2},
		{"an attribute is kept", `(%alias_0__k: tensor<4xf32> { sdy.sharding = #sdy.sharding<@mesh, [{"tp"}, {}]> }) -> (tensor<4xf32> { sdy.sharding = #sdy.sharding<@mesh, [{"tp"}, {}]> })`,
			`(%alias_0__k: tensor<4xf32> {tf.aliasing_output = 0 : i32,  sdy.sharding = #sdy.sharding<@mesh, [{"tp"}, {}]> }) -> (tensor<4xf32> { sdy.sharding = #sdy.sharding<@mesh, [{"tp"}, {}]> })`, 1},
		{"attributes over lines", "(%alias_0__k: tensor<4xf32> {\n    a = 1,\n    b = \"x, y) -> {\"\n  }, %z: tensor<f32>) -> tensor<4xf32>",
			"(%alias_0__k: tensor<4xf32> {tf.aliasing_output = 0 : i32, \n    a = 1,\n    b = \"x, y) -> {\"\n  }, %z: tensor<f32>) -> tensor<4xf32>", 1},
		{"empty attributes", "(%alias_0__k: tensor<4xf32> { }) -> tensor<4xf32>",
			"(%alias_0__k: tensor<4xf32> {tf.aliasing_output = 0 : i32 }) -> tensor<4xf32>", 1},
		{"aliased already", "(%alias_0__k: tensor<4xf32> {tf.aliasing_output = 1 : i32}) -> (tensor<f32>, tensor<4xf32>)", "", 0},
		{"a donor already", "(%alias_0__k: tensor<4xf32> {jax.buffer_donor = true}) -> tensor<4xf32>", "", 0},
		{"no such names", "(%x: tensor<4xf32>, %alias: tensor<f32>, %alias_0_k: tensor<f32>, %alias___k: tensor<f32>, %alias_x__k: tensor<f32>, %my_alias_0__k: tensor<f32>) -> tensor<4xf32>", "", 0},
		{"a number beyond reason", "(%alias_99999999999999999999__k: tensor<4xf32>) -> tensor<4xf32>", "", 0},
		{"no parameters", "() -> tensor<4xf32>", "", 0},
		{"escaped quotes", `(%x: tensor<f32> {a = "\")\\"}, %alias_0__k: tensor<4xf32>) -> tensor<4xf32>`,
			`(%x: tensor<f32> {a = "\")\\"}, %alias_0__k: tensor<4xf32> {tf.aliasing_output = 0 : i32}) -> tensor<4xf32>`, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := program(test.in)
			out, aliases, err := rewriteAliases(in)
			require.NoError(t, err)
			require.Equal(t, test.aliases, aliases)
			if test.want == "" {
				require.Equal(t, in, out)
			} else {
				require.Equal(t, program(test.want), out)
			}
		})
	}
}

func TestRewriteAliasesErrors(t *testing.T) {
	for signature, want := range map[string]string{
		"(%alias_2__k: tensor<4xf32>) -> (tensor<4xf32>, tensor<f32>)":                         "result 2, but main has 2 results",
		"(%alias_0__k: tensor<4xf32>)":                                                         "main has 0 results",
		"(%alias_0__k: tensor<4xf32>) -> tensor<4xf16>":                                        "alias_0__k is tensor<4xf32> and result 0 is tensor<4xf16>",
		"(%alias_0__k: tensor<4xf32>, %alias_0__v: tensor<4xf32>) -> tensor<4xf32>":            "alias_0__k and alias_0__v both ask",
		"(%alias_1__k: tensor<4xf32>) -> (tensor<4xf32> {a = [\"tensor<1>, \"]}, tensor<f32>)": "result 1 is tensor<f32>",
	} {
		_, _, err := rewriteAliases(program(signature))
		require.ErrorContains(t, err, want, signature)
	}
}

// TestRewriteOnlyMain: the words in other functions, in strings or in text that is cut off are left alone.
func TestRewriteOnlyMain(t *testing.T) {
	signature := "(%alias_0__k: tensor<4xf32>) -> tensor<4xf32>"
	whole := program(signature)
	for _, text := range []string{
		"", "module", "func.func @main(", "func.func @main(%alias_0__k", whole[:strings.Index(whole, " ->")-1],
		strings.Replace(whole, "@main(", "@helper(", 1),
		"module @x { \"a\"() {b = \"func.func @main" + signature + " {\"} : () -> () }",
		"\x00\xff binary MLIR \x00",
		"func.func @main(" + strings.Repeat("(", 100_000),
		"func.func @main(%alias_0__k tensor<4xf32>) -> tensor<4xf32> {",
		"func.func @main(%alias_0__k: tensor<4xf32>] -> tensor<4xf32> {",
	} {
		out, aliases, err := rewriteAliases(text)
		require.NoError(t, err)
		require.Zero(t, aliases)
		require.Equal(t, text, out)
	}
	helper := "  func.func @helper(%alias_7__k: tensor<4xf32>) -> tensor<4xf32> {\n  }\n"
	both := strings.Replace(whole, "  func.func", helper+"  func.func", 1)
	out, aliases, err := rewriteAliases(both)
	require.NoError(t, err)
	require.Equal(t, 1, aliases)
	require.Contains(t, out, helper)
}

func FuzzRewriteAliases(f *testing.F) {
	f.Add(program("(%alias_0__k: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32>"))
	f.Add(program(`(%alias_1__k: tensor<4xf32> {a = "\"})"}) -> (tensor<f32> {b = [1, {}]}, tensor<4xf32>)`))
	f.Add("func.func @main(%alias_0__k: ")
	f.Add("func.func @main(%a: \"\\")
	f.Add("func.func public @main(%alias_0__: x{}) -> (x {")
	f.Fuzz(func(t *testing.T, text string) {
		out, aliases, err := rewriteAliases(text)
		if err != nil {
			return
		}
		if aliases == 0 {
			require.Equal(t, text, out)
			return
		}
		// Only attributes are added, and a second pass adds none.
		again, more, err := rewriteAliases(out)
		require.NoError(t, err)
		require.Zero(t, more)
		require.Equal(t, out, again)
		require.Greater(t, len(out), len(text))
	})
}
