package layers

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
)

// Params says how one row is sampled. The zero value is greedy.
type Params struct {
	Temperature float32 // 0 is greedy, whatever the filters say
	TopK        int     // keep the k most likely; 0 is off
	TopP        float32 // keep the smallest set that holds this probability; 0 and 1 are off
	MinP        float32 // keep what is at least this likely relative to the most likely; 0 is off
}

// Validate returns an error that names the field and its value where sampling has no meaning.
func (p Params) Validate() error {
	switch {
	case !(p.Temperature >= 0) || math.IsInf(float64(p.Temperature), 1):
		return fmt.Errorf("temperature %v: want a finite number of at least 0", p.Temperature)
	case p.TopK < 0:
		return fmt.Errorf("top_k %d: want at least 0 (0 is off)", p.TopK)
	case !(p.TopP >= 0 && p.TopP <= 1):
		return fmt.Errorf("top_p %v: want a number in [0, 1] (0 and 1 are off)", p.TopP)
	case !(p.MinP >= 0 && p.MinP <= 1):
		return fmt.Errorf("min_p %v: want a number in [0, 1] (0 is off)", p.MinP)
	}
	return nil
}

// Filters says whether any filter is on, so that a batch without one can run [SampleTemperature].
func (p Params) Filters() bool {
	return p.TopK > 0 || p.TopP > 0 && p.TopP < 1 || p.MinP > 0
}

// Row returns the row of the params tensor that [SampleTemperature] and [SampleFiltered] take: temperature, top_k, top_p,
// min_p. A top_k above 2^24 (more than float32 counts exactly, and than any vocabulary has) is cut to it.
func (p Params) Row() [4]float32 {
	return [4]float32{p.Temperature, float32(min(max(p.TopK, 0), 1<<24)), p.TopP, p.MinP}
}

// SampleHost is [SampleFiltered] for one row on the host: the same token for the same inputs, bit for bit, since all sums
// are of integers. It takes time proportional to the vocabulary and does not change logits. An empty row panics.
func SampleHost(logits []float32, p Params, u float32) int32 {
	greedy, top := argMaxHost(logits)
	if !(p.Temperature > 0) || top <= negInfKey {
		return greedy
	}
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	s.mass = slices.Grow(s.mass[:0], len(logits))[:len(logits)]
	mass := s.mass

	cut := int32(math.MinInt32)
	if p.TopK > 0 && p.TopK < len(logits) {
		cut = s.threshold(logits, nil, int64(p.TopK))
	}
	var total int64
	scale, best := float32(log2Scale)/p.Temperature, keyValueHost(top)
	for i, l := range logits {
		mass[i] = 0
		if key := keyHost(l); key >= cut {
			mass[i] = massHost(l, best, scale, key == top)
			total += mass[i]
		}
	}
	if p.TopP > 0 && p.TopP < 1 {
		limit := mulShift(total, fixedPointHost(p.TopP, ratioBits, 1<<ratioBits), ratioBits, 1<<ratioBits-1)
		cut := s.threshold(logits, mass, max(limit, 1))
		total = 0
		for i, m := range mass {
			if m != 0 && keyHost(logits[i]) < cut {
				mass[i] = 0
			}
			total += mass[i]
		}
	}
	if minMass := fixedPointHost(p.MinP, ratioBits, 1<<ratioBits) << (massBits - ratioBits); minMass > 0 {
		total = 0
		for i, m := range mass {
			if m < minMass {
				mass[i] = 0
			}
			total += mass[i]
		}
	}
	target := mulShift(total, fixedPointHost(u, uBits, 1<<uBits-1), uBits, 0)
	for i, m := range mass {
		if target < m {
			return int32(i)
		}
		target -= m
	}
	return greedy // unreachable: target < total
}

// scratch is what a selection over the vocabulary writes to. The pool keeps it from being allocated in every step.
type scratch struct {
	mass []int64   // one per token
	bin  []weighed // the tokens that share the leading bits of the threshold
}

type weighed struct {
	key    uint32 // in unsigned order
	weight int64
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// TokenLogProb is a token and its log-probability.
type TokenLogProb struct {
	ID      int32
	LogProb float32
}

// LogProbHost is [LogProb] for one row on the host, summed in float64.
func LogProbHost(logits []float32, id int32) float32 {
	if id < 0 || int(id) >= len(logits) {
		return float32(math.Inf(-1))
	}
	return float32(float64(logits[id]) - logSumExp(logits))
}

// TopLogProbs returns the n most likely tokens of a row of logits, the most likely first and on a tie the lower id, with
// their log-probabilities under the unfiltered distribution at temperature 1. It returns fewer if the vocabulary is smaller.
func TopLogProbs(logits []float32, n int) []TokenLogProb {
	n = min(n, len(logits))
	if n <= 0 {
		return nil
	}
	norm := logSumExp(logits)
	s := scratchPool.Get().(*scratch)
	cut := s.threshold(logits, nil, int64(n))
	scratchPool.Put(s)
	found := make([]TokenLogProb, 0, n)
	var ties []TokenLogProb // at the n-th place, by id; at most n of them can be needed
	for i, l := range logits {
		key := keyHost(l)
		t := TokenLogProb{ID: int32(i), LogProb: float32(float64(l) - norm)}
		switch {
		case key > cut:
			found = append(found, t)
		case key == cut && len(ties) < n:
			ties = append(ties, t)
		}
	}
	slices.SortFunc(found, func(a, b TokenLogProb) int {
		if ka, kb := keyHost(logits[a.ID]), keyHost(logits[b.ID]); ka != kb {
			if ka > kb {
				return -1
			}
			return 1
		}
		return int(a.ID - b.ID)
	})
	return append(found, ties[:n-len(found)]...)
}

// logSumExp returns log Σ exp(logits) in float64; NaN where [LogProb] is NaN for every id.
func logSumExp(logits []float32) float64 {
	top := math.Inf(-1)
	for _, l := range logits {
		top = max(top, float64(l)) // NaN stays
	}
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - top)
	}
	return top + math.Log(sum)
}

// Uniform returns the uniform number in [0,1) that a request with this seed uses at this step: the top 24 bits of the
// first word of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the generator of
// JAX, PyTorch and cuRAND on GPUs) with key = seed and counter = step. It is a pure function, so that a request's numbers
// depend on nothing else in the batch, and it is part of the project's promise: it never changes for a given pair.
func Uniform(seed, step uint64) float32 {
	word := philox4x32([4]uint32{uint32(step), uint32(step >> 32)}, [2]uint32{uint32(seed), uint32(seed >> 32)})[0]
	return float32(word>>8) * (1.0 / (1 << 24))
}

// philox4x32 is ten rounds of Philox4x32.
func philox4x32(counter [4]uint32, key [2]uint32) [4]uint32 {
	for range 10 {
		hi0, lo0 := bits.Mul32(0xd2511f53, counter[0])
		hi1, lo1 := bits.Mul32(0xcd9e8d57, counter[2])
		counter = [4]uint32{hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0}
		key[0] += 0x9e3779b9
		key[1] += 0xbb67ae85
	}
	return counter
}

// The rest mirrors the graph's functions of the same names in sample.go.

func argMaxHost(logits []float32) (id, key int32) {
	id, key = 0, keyHost(logits[0])
	for i, l := range logits {
		if k := keyHost(l); k > key {
			id, key = int32(i), k
		}
	}
	return id, key
}

func keyHost(logit float32) int32 {
	b := math.Float32bits(logit)
	magnitude := int32(b & math.MaxInt32)
	if magnitude > 0x7f800000 {
		return nanKey
	}
	sign := int32(b) >> 31
	return (magnitude ^ sign) - sign
}

func keyValueHost(key int32) float32 {
	if key < 0 {
		return -math.Float32frombits(uint32(-key))
	}
	return math.Float32frombits(uint32(key))
}

func massHost(logit, best, scale float32, isBest bool) int64 {
	if isBest {
		return 1 << massBits
	}
	y := float32(logit-best) * scale
	if !(y >= log2Floor) {
		return 0
	}
	return exp2Host(int32(y))
}

func exp2Host(y int32) int64 {
	f := int64(y & (1<<log2Bits - 1))
	p := exp2Poly[6]
	p = p*f>>log2Bits + exp2Poly[5]
	p = p*f>>log2Bits + exp2Poly[4]
	p = p*f>>log2Bits + exp2Poly[3]
	p = p*f>>log2Bits + exp2Poly[2]
	p = p*f>>log2Bits + exp2Poly[1]
	p = p*f>>log2Bits + exp2Poly[0]
	return p << (massBits - polyBits) >> -(y >> log2Bits)
}

func fixedPointHost(x float32, fractionBits int, top int64) int64 {
	x *= float32(int64(1) << fractionBits)
	if !(x > 0) {
		return 0
	}
	return min(int64(min(x, float32(int64(1)<<fractionBits))), top)
}

// mulShift returns (a·b + round) >> shift without overflow.
func mulShift(a, b int64, shift int, round uint64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	lo, carry := bits.Add64(lo, round, 0)
	hi += carry
	return int64(hi<<(64-shift) | lo>>shift)
}

// threshold fixes 11, 11 and 10 bits of the key, each by a histogram of the tokens that share the bits before: the first
// over the vocabulary, the others over the few that are left.
func (s *scratch) threshold(logits []float32, weights []int64, limit int64) int32 {
	const (
		offset = 1 << 31 // from the order of int32 to that of uint32
		width  = 11
	)
	var histogram [1 << width]int64
	shift := 32 - width
	weight := int64(1)
	for i, l := range logits {
		if weights != nil {
			if weight = weights[i]; weight == 0 {
				continue
			}
		}
		histogram[(uint32(keyHost(l))^offset)>>shift] += weight
	}
	digit, limit := lastReaching(histogram[:], limit)
	s.bin = s.bin[:0]
	for i, l := range logits {
		key := uint32(keyHost(l)) ^ offset
		if key>>shift != digit {
			continue
		}
		if weights != nil {
			weight = weights[i]
		}
		s.bin = append(s.bin, weighed{key, weight})
	}

	cut := digit << shift
	for shift > 0 {
		known := shift
		shift = max(shift-width, 0)
		clear(histogram[:])
		for _, w := range s.bin {
			if w.key>>known == cut>>known {
				histogram[w.key>>shift&(1<<(known-shift)-1)] += w.weight
			}
		}
		digit, limit = lastReaching(histogram[:1<<(known-shift)], limit)
		cut |= digit << shift
	}
	return int32(cut ^ offset)
}

// lastReaching returns the highest digit such that it and all above weigh at least limit, and what of limit is left for it.
func lastReaching(histogram []int64, limit int64) (digit uint32, rest int64) {
	d := len(histogram) - 1
	for ; d > 0 && histogram[d] < limit; d-- {
		limit -= histogram[d]
	}
	return uint32(d), limit
}
