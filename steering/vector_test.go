package steering

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/steerage/steerage/safetensors"
	"github.com/stretchr/testify/require"
)

// testVector has layers 1, 2 and 4, hidden size 4.
func testVector() *Vector {
	v := &Vector{Hidden: 4, Provenance: Provenance{
		Model: "some/model", Fingerprint: testConfig.Fingerprint(), NumHiddenLayers: 6, Data: "pairs.jsonl", Date: "2026-11-24T10:00:00Z",
		Method: "logistic", Notes: map[string]string{"seed": "42"},
	}}
	for i, x := range [][]float32{{1, 0, 0, 0}, {0.6, 0.8, 0, 0}, {0.5, -0.5, 0.5, 0.5}} {
		f := float64(i)
		v.Layers = append(v.Layers, Layer{
			Index: []int{1, 2, 4}[i], Direction: x, DeltaMu: 2 + f,
			Statistics: &Statistics{M: 0.1 + f, MuPos: 1 + f, MuNeg: -1, SigmaPos: 0.3, SigmaNeg: 0.7, CohensD: 4},
		})
	}
	return v
}

var testConfig = Config{Architecture: "LlamaForCausalLM", HiddenSize: 4, NumHiddenLayers: 6}

func TestSaveLoad(t *testing.T) {
	dir := t.TempDir()
	v := testVector()
	path := filepath.Join(dir, "v.safetensors")
	require.NoError(t, v.Save(path))
	got, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, v, got)

	bare := &Vector{Hidden: 4, Layers: []Layer{{Index: 0, Direction: []float32{0, 0, 1, 0}, DeltaMu: 1}}}
	require.NoError(t, bare.Save(path))
	got, err = Load(path)
	require.NoError(t, err)
	require.Equal(t, bare, got)

	v.Notes["model"] = "x"
	require.ErrorContains(t, v.Save(path), `note "model" has the name of a field`)
}

// hostileVector is a change of a good file that must be refused.
type hostileVector struct {
	name, want string
	change     func(tensors map[string]*safetensors.Tensor, metadata map[string]string)
}

func put64(t *safetensors.Tensor, i int, x float64) {
	t.Data = slices.Clone(t.Data)
	binary.LittleEndian.PutUint64(t.Data[8*i:], math.Float64bits(x))
}

func put32(t *safetensors.Tensor, i int, x float32) {
	t.Data = slices.Clone(t.Data)
	binary.LittleEndian.PutUint32(t.Data[4*i:], math.Float32bits(x))
}

type tensorMap = map[string]*safetensors.Tensor
type metadata = map[string]string

var hostileVectors = []hostileVector{
	{"no format", "this is no steering vector", func(_ tensorMap, m metadata) { delete(m, "format") }},
	{"future version", `version is "2"`, func(_ tensorMap, m metadata) { m["version"] = "2" }},
	{"other layers", `layer_convention is "hidden_states index"`, func(_ tensorMap, m metadata) { m["layer_convention"] = "hidden_states index" }},
	{"layer count", `num_hidden_layers is "many"`, func(_ tensorMap, m metadata) { m["num_hidden_layers"] = "many" }},
	{"negative layer count", `num_hidden_layers is "-1"`, func(_ tensorMap, m metadata) { m["num_hidden_layers"] = "-1" }},
	{"few layers", "layer 4 is not between 0 and 3", func(_ tensorMap, m metadata) { m["num_hidden_layers"] = "4" }},
	{"long note", "has 65537 bytes", func(_ tensorMap, m metadata) { m["note"] = strings.Repeat("x", 1<<16+1) }},
	{"no direction", `no tensor "direction"`, func(ts tensorMap, _ metadata) { delete(ts, "direction") }},
	{"no layers", `no tensor "layers"`, func(ts tensorMap, _ metadata) { delete(ts, "layers") }},
	{"no length", `no tensor "delta_mu"`, func(ts tensorMap, _ metadata) { delete(ts, "delta_mu") }},
	{"some statistics", `no tensor "mu_neg"`, func(ts tensorMap, _ metadata) { delete(ts, "mu_neg") }},
	{"surplus", `tensor "more" is not part`, func(ts tensorMap, _ metadata) {
		ts["more"] = &safetensors.Tensor{Name: "more", DType: safetensors.U8, Shape: []int{1}, Data: []byte{1}}
	}},
	{"flat", `"direction" has shape [12], want [* *]`, func(ts tensorMap, _ metadata) { ts["direction"].Shape = []int{12} }},
	{"empty", "direction has shape [0 4]", func(ts tensorMap, _ metadata) {
		ts["direction"].Shape, ts["direction"].Data = []int{0, 4}, nil
	}},
	{"hidden 0", "direction has shape [3 0]", func(ts tensorMap, _ metadata) {
		ts["direction"].Shape, ts["direction"].Data = []int{3, 0}, nil
	}},
	{"mis-shaped", `"layers" has shape [3], want [4]`, func(ts tensorMap, _ metadata) { ts["direction"].Shape = []int{4, 3} }},
	{"dtype", `"direction" has dtype I32, want F32`, func(ts tensorMap, _ metadata) { ts["direction"].DType = safetensors.I32 }},
	{"NaN", "layer 2: direction[1] is NaN", func(ts tensorMap, _ metadata) { put32(ts["direction"], 5, float32(math.NaN())) }},
	{"Inf", "direction[0] is +Inf", func(ts tensorMap, _ metadata) { put32(ts["direction"], 0, float32(math.Inf(1))) }},
	{"huge", "has norm", func(ts tensorMap, _ metadata) { put32(ts["direction"], 0, math.MaxFloat32) }},
	{"not unit", "direction has norm 2, not 1", func(ts tensorMap, _ metadata) { put32(ts["direction"], 0, 2) }},
	{"zero", "direction has norm 0, not 1", func(ts tensorMap, _ metadata) { put32(ts["direction"], 0, 0) }},
	{"m NaN", "layer 1: m is NaN", func(ts tensorMap, _ metadata) { put64(ts["m"], 0, math.NaN()) }},
	{"huge mu", "mu_pos is 1e+300", func(ts tensorMap, _ metadata) { put64(ts["mu_pos"], 0, 1e300) }},
	{"sigma", "a standard deviation is not negative", func(ts tensorMap, _ metadata) { put64(ts["sigma_neg"], 2, -1) }},
	{"length", "delta_mu is +Inf", func(ts tensorMap, _ metadata) { put64(ts["delta_mu"], 2, math.Inf(1)) }},
	{"order", "layer 1 follows layer 1", func(ts tensorMap, _ metadata) { ts["layers"].Data = []byte{1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0} }},
	{"negative layer", "layer -1 is not between", func(ts tensorMap, _ metadata) {
		ts["layers"].Data = []byte{255, 255, 255, 255, 1, 0, 0, 0, 2, 0, 0, 0}
	}},
}

func (h hostileVector) file(t testing.TB) []byte {
	list, meta, err := testVector().encode()
	require.NoError(t, err)
	tensors := make(tensorMap)
	for i := range list {
		tensors[list[i].Name] = &list[i]
	}
	h.change(tensors, meta)
	var changed []safetensors.Tensor
	for _, tensor := range tensors {
		changed = append(changed, *tensor)
	}
	var b bytes.Buffer
	require.NoError(t, safetensors.Write(&b, changed, meta), h.name)
	return b.Bytes()
}

func TestLoadHostile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	for _, h := range hostileVectors {
		t.Run(h.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, h.file(t), 0o600))
			_, err := Load(path)
			require.ErrorContains(t, err, h.want)
			require.ErrorContains(t, err, path)
		})
	}
	good := hostileVector{change: func(tensorMap, metadata) {}}.file(t)
	for n := range len(good) {
		require.NoError(t, os.WriteFile(path, good[:n], 0o600))
		_, err := Load(path)
		require.Error(t, err, "truncated to %d bytes", n)
	}
	for file, want := range map[string]string{"PK\x03\x04zip": "PyTorch pickle", "\x80\x02}q": "PyTorch pickle"} {
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		_, err := Load(path)
		require.ErrorContains(t, err, want)
	}
	_, err := Load(filepath.Dir(path))
	require.ErrorContains(t, err, "not a regular file")
}

// FuzzLoad: no file panics; what is accepted is valid, and is saved and loaded unchanged.
func FuzzLoad(f *testing.F) {
	for _, h := range hostileVectors {
		if file := h.file(f); len(file) < 1<<12 { // a long seed makes every mutation slow
			f.Add(file)
		}
	}
	f.Add(hostileVector{change: func(tensorMap, metadata) {}}.file(f))
	path := filepath.Join(f.TempDir(), "fuzz") // of this process: making a folder each time costs more than the test
	f.Fuzz(func(t *testing.T, file []byte) {
		require.NoError(t, os.WriteFile(path, file, 0o600))
		v, err := Load(path)
		if err != nil {
			require.Less(t, len(err.Error()), 3000)
			return
		}
		require.NoError(t, v.Validate())
		tensors, meta, err := v.encode()
		require.NoError(t, err)
		var b bytes.Buffer
		require.NoError(t, safetensors.Write(&b, tensors, meta))
		require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
		again, err := Load(path)
		require.NoError(t, err)
		require.Equal(t, v, again)
	})
}

func TestCheck(t *testing.T) {
	v := testVector()
	require.NoError(t, v.Check(testConfig, false))
	bare := *v
	bare.Provenance = Provenance{}
	other := testConfig
	other.NumHiddenLayers = 9
	require.NoError(t, bare.Check(other, false), "what a vector does not say is not checked")
	for _, c := range []struct {
		change    func(c *Config)
		field     string
		forceable bool
	}{
		{func(c *Config) { c.HiddenSize = 5 }, "hidden_size is 4, the model's 5", false},
		{func(c *Config) { c.NumHiddenLayers = 4 }, "highest layer is 4, the model's 3", false},
		{func(c *Config) { c.NumHiddenLayers = 8 }, "num_hidden_layers is 6, the model's 8", true},
		{func(c *Config) { c.VocabSize = 7 }, "fingerprint is", true},
		{func(c *Config) { c.Architecture = "Qwen3ForCausalLM" }, "fingerprint is", true},
	} {
		config := testConfig
		c.change(&config)
		err := v.Check(config, false)
		require.ErrorContains(t, err, c.field)
		require.ErrorContains(t, err, `made for "some/model"`)
		var mismatch *MismatchError
		require.ErrorAs(t, err, &mismatch)
		require.Equal(t, c.forceable, mismatch.Forceable)
		if c.forceable {
			require.NoError(t, v.Check(config, true))
		} else {
			require.Error(t, v.Check(config, true))
		}
	}
}

func TestArithmetic(t *testing.T) {
	v := testVector()
	n := v.Negate()
	require.NoError(t, n.Validate())
	require.Equal(t, &Statistics{M: -0.1, MuPos: 1, MuNeg: -1, SigmaPos: 0.7, SigmaNeg: 0.3, CohensD: 4}, n.Layers[0].Statistics)
	require.Equal(t, v, n.Negate())
	require.Equal(t, []float32{1, 0, 0, 0}, v.Layers[0].Direction, "vectors do not change")

	double, err := v.Scale(-2)
	require.NoError(t, err)
	require.Equal(t, n.Layers[1].Direction, double.Layers[1].Direction)
	require.Equal(t, 6.0, double.Layers[1].DeltaMu)
	_, err = v.Scale(math.NaN())
	require.ErrorContains(t, err, "delta_mu is NaN")

	other := &Vector{Hidden: 4, Layers: []Layer{
		{Index: 0, Direction: []float32{0, 0, 0, 1}, DeltaMu: 5},
		{Index: 1, Direction: []float32{0, 1, 0, 0}, DeltaMu: 2},
	}}
	sum, err := Sum(v, other)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 4}, sum.Indices())
	require.InDelta(t, math.Sqrt(8), sum.Layers[1].DeltaMu, 1e-12)
	require.InDeltaSlice(t, []float32{math.Sqrt2 / 2, math.Sqrt2 / 2, 0, 0}, sum.Layers[1].Direction, 1e-7)
	require.Nil(t, sum.Layers[1].Statistics)
	_, err = Sum(v, n)
	require.ErrorContains(t, err, "layer 1: the vector is zero")
	_, err = Sum()
	require.ErrorContains(t, err, "no vectors")
	_, err = Sum(v, &Vector{Hidden: 5})
	require.ErrorContains(t, err, "vector 1 has hidden_size 5")

	two, err := v.Select(2)
	require.NoError(t, err)
	along := &Vector{Hidden: 4, Layers: []Layer{{Index: 2, Direction: []float32{1, 0, 0, 0}, DeltaMu: 9}}}
	rest, err := two.Orthogonalise(along)
	require.NoError(t, err)
	require.Equal(t, []float32{0, 1, 0, 0}, rest.Layers[0].Direction)
	require.InDelta(t, 3*0.8, rest.Layers[0].DeltaMu, 1e-6)
	_, err = two.Orthogonalise(two)
	require.ErrorContains(t, err, "layer 2: the vectors are parallel")
	_, err = v.Orthogonalise(along)
	require.ErrorContains(t, err, "no layer 1; it has 2")
	_, err = v.Select()
	require.ErrorContains(t, err, "no layers")
}
