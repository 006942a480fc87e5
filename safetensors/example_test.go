package safetensors_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/steerage/steerage/safetensors"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	err = safetensors.WriteFile(filepath.Join(dir, safetensors.SingleName), []safetensors.Tensor{
		{Name: "model.norm.weight", DType: safetensors.BF16, Shape: []int{2}, Data: []byte{0x80, 0x3f, 0x80, 0x3f}},
		{Name: "lm_head.weight", DType: safetensors.F32, Shape: []int{1, 2}, Data: make([]byte, 8)},
	}, map[string]string{"format": "pt"})
	if err != nil {
		log.Fatal(err)
	}

	weights, err := safetensors.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer weights.Close()
	for _, name := range weights.Names() {
		t, _ := weights.Tensor(name)
		fmt.Println(t, len(t.Data), "bytes") // t.Data goes to the device here, without a copy
		weights.Release(name)
	}
	fmt.Println(weights.Metadata())
	// Output:
	// lm_head.weight F32 [1 2] 8 bytes
	// model.norm.weight BF16 [2] 4 bytes
	// map[format:pt]
}

// A header alone says what a model holds.
func ExampleOpenHeader() {
	h, err := safetensors.OpenHeader("testdata/python.safetensors")
	if err != nil {
		log.Fatal(err)
	}
	t, ok := h.Tensor("f32")
	fmt.Println(t, ok, t.Size(), "bytes of", h.DataSize())
	// Output:
	// f32 F32 [2 3] true 24 bytes of 99
}

// Nothing is taken on trust: the error says which tensor of which file breaks which rule.
func ExampleFormatError() {
	header := `{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,8]}}`
	file := fmt.Sprintf("%c\x00\x00\x00\x00\x00\x00\x00%s%8s", len(header), header, "")
	_, err := safetensors.ReadHeader(strings.NewReader(file), int64(len(file)), "broken.safetensors")
	fmt.Println(err)
	// Output:
	// safetensors: broken.safetensors: tensor "w": header: at byte 55: shape [2 2] of F32 needs 16 bytes, data_offsets [0, 8] hold 8
}
