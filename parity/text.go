package parity

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/steerage/steerage/engine"
	"github.com/steerage/steerage/safetensors"
	"github.com/steerage/steerage/steering"
)

// text is one text of a dump under one steering: a case over a sequence, or a row of the mixed batch.
type text struct {
	where  string // for messages
	path   string // of its tensors, behind the reference: "steer.swfc_one_all.seq.0"
	ids    []int32
	prompt int // tokens of it
	sites  []site
	spec   steering.Spec // an entry for each site
	told   map[string]told

	insight bool      // the dump holds hidden_last, rho and gate, too
	greedy  []int32   // f32; what follows the prompt, instead of the rest of ids; nil if the dump does not say
	margin  []float32 // f32
}

func (x *text) name(ref, what string) string { return fmt.Sprintf("%s.%s.%s", ref, x.path, what) }

func (x *text) sequence() engine.Sequence {
	return engine.Sequence{Prompt: x.ids[:x.prompt], Continuation: x.ids[x.prompt:], Steering: x.spec}
}

// continued is the prompt with a continuation, whose last token is not run.
func (x *text) continued(tokens []int32) engine.Sequence {
	return engine.Sequence{Prompt: x.ids[:x.prompt], Continuation: tokens[:len(tokens)-1], Steering: x.spec}
}

// site is one edit of a steering case. Every number is exactly a float32.
type site struct {
	Layer     int      `json:"layer"`
	Method    string   `json:"method"`
	VIndex    int      `json:"v_index"`
	Alpha     float64  `json:"alpha"`
	M         float64  `json:"m"`
	MuPos     float64  `json:"mu_pos"`
	MuNeg     float64  `json:"mu_neg"`
	SigmaPos  float64  `json:"sigma_pos"`
	SigmaNeg  float64  `json:"sigma_neg"`
	DeltaMu   float64  `json:"delta_mu"`
	Cap       *float64 `json:"cap"`
	Direction string   `json:"direction"`
}

// did is what one site did to a text, as the dump has it.
type did struct {
	Layer    int     `json:"layer"`
	Eligible int     `json:"eligible"`
	Gated    int     `json:"gated"`
	MeanL2   float64 `json:"mean_l2_eligible"`
	Capped   int     `json:"capped"`
}

// told is what the dump says of a text by one reference. Absent fields are not compared.
type told struct {
	Sites            []did    `json:"sites"`        // over ids
	GreedySites      []did    `json:"greedy_sites"` // over the prompt and the tokens fed back
	GreedyGateMargin *float64 `json:"greedy_gate_min_margin"`
}

// steerInfo is "steer" of dump.json.
type steerInfo struct {
	Sequences []struct {
		PromptLen int `json:"prompt_len"`
	} `json:"sequences"`
	Cases []steerCase `json:"cases"`
}

type steerCase struct {
	Name      string            `json:"name"`
	Mode      string            `json:"mode"`
	Sites     []site            `json:"sites"`
	Sequences []map[string]told `json:"sequences"`
}

// mixedInfo is "mixed" of dump.json.
type mixedInfo struct {
	Rows []struct {
		Config    string  `json:"config"`
		IDs       []int32 `json:"ids"`
		PromptLen int     `json:"prompt_len"`
	} `json:"rows"`
	F32  mixedTold `json:"f32"`
	BF16 mixedTold `json:"bf16"`
}

type mixedTold struct {
	Sites            [][]did    `json:"sites"`
	GreedyGateMargin []*float64 `json:"greedy_gate_min_margin"`
}

// readTexts reads steer and mixed.
func (d *dump) readTexts() error {
	specs := map[string]steering.Spec{"none": nil}
	sites := map[string][]site{}
	if s := d.info.Steer; s != nil {
		directions, err := d.directions()
		if err != nil {
			return err
		}
		for _, c := range s.Cases {
			if _, twice := specs[c.Name]; twice {
				return fmt.Errorf("%s: steering case %q is there twice", dumpJSON, c.Name)
			}
			if specs[c.Name], err = d.spec(c, directions); err != nil {
				return fmt.Errorf("%s: case %q: %w", dumpJSON, c.Name, err)
			}
			sites[c.Name] = c.Sites
		}
		if err := d.readSteer(specs); err != nil {
			return err
		}
	} else if d.has(refF32 + ".steer.") {
		return fmt.Errorf("%s holds steered tensors, %s has no steer", DumpName, dumpJSON)
	}
	if m := d.info.Mixed; m != nil {
		return d.readMixed(specs, sites)
	} else if d.has(refF32 + ".mixed.") {
		return fmt.Errorf("%s holds a mixed batch, %s has no mixed", DumpName, dumpJSON)
	}
	return nil
}

// directions reads steer.v_hat, [K, H].
func (d *dump) directions() ([][]float32, error) {
	const name = "steer.v_hat"
	if d.info.Steer == nil || !slices.ContainsFunc(d.info.Steer.Cases, func(c steerCase) bool { return len(c.Sites) > 0 }) {
		return nil, nil
	}
	t, err := d.tensor(name)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 2 || t.DType != safetensors.F32 {
		return nil, fmt.Errorf("%s: tensor %q is %s %v, want F32 with 2 dimensions", DumpName, name, t.DType, t.Shape)
	}
	flat, err := d.floats(name, t.Shape[0], d.cfg.HiddenSize)
	return slices.Collect(slices.Chunk(flat, d.cfg.HiddenSize)), err
}

// spec turns a case into a spec with an entry for each site.
func (d *dump) spec(c steerCase, directions [][]float32) (steering.Spec, error) {
	positions, err := steering.ParsePositions(c.Mode)
	if err != nil {
		return nil, fmt.Errorf("mode: %w", err)
	}
	var spec steering.Spec
	for i, s := range c.Sites {
		method, err := steering.ParseMethod(s.Method)
		if err != nil {
			return nil, fmt.Errorf("site %d: %w", i, err)
		}
		if s.VIndex < 0 || s.VIndex >= len(directions) {
			return nil, fmt.Errorf("site %d: v_index is %d, there are %d directions", i, s.VIndex, len(directions))
		}
		if limit := s.MuPos + 40*s.SigmaPos; s.Cap != nil && !(math.Abs(*s.Cap-limit) <= 1e-6*math.Abs(limit)) {
			return nil, fmt.Errorf("site %d: cap is %v, mu_pos + 40 sigma_pos is %v", i, *s.Cap, limit)
		}
		spec = append(spec, steering.Entry{
			Vector: &steering.Vector{Hidden: d.cfg.HiddenSize, Layers: []steering.Layer{{
				Index: s.Layer, Direction: directions[s.VIndex], DeltaMu: s.DeltaMu,
				Statistics: &steering.Statistics{M: s.M, MuPos: s.MuPos, MuNeg: s.MuNeg, SigmaPos: s.SigmaPos, SigmaNeg: s.SigmaNeg},
			}}},
			Method: method, Coefficient: s.Alpha,
			Negative:  s.Direction == "negative" && method != steering.SwFC, // SwFC is told by the sign of alpha
			Positions: positions,
		})
	}
	_, err = steering.NewPlan(spec, d.cfg.NumHiddenLayers, d.cfg.HiddenSize)
	return spec, err
}

// readSteer lists each sequence without steering, where that is in the dump, and under each case.
func (d *dump) readSteer(specs map[string]steering.Spec) error {
	for j, sequence := range d.info.Steer.Sequences {
		ids, err := d.tokens(fmt.Sprintf("steer.seq.%d.ids", j))
		if err != nil {
			return err
		}
		x := text{ids: ids, prompt: sequence.PromptLen}
		x.where, x.path = fmt.Sprintf("unsteered, sequence %d", j), fmt.Sprintf("steer.unsteered.seq.%d", j)
		if x.prompt < 1 || x.prompt > len(ids) {
			return fmt.Errorf("%s: the prompt of steering sequence %d has %d of %d tokens", dumpJSON, j, x.prompt, len(ids))
		}
		if d.has(x.name(refF32, "")) {
			d.steer = append(d.steer, x)
		}
		for _, c := range d.info.Steer.Cases {
			if len(c.Sequences) != len(d.info.Steer.Sequences) {
				return fmt.Errorf("%s: case %q has %d sequences, there are %d", dumpJSON, c.Name, len(c.Sequences), len(d.info.Steer.Sequences))
			}
			x := x
			x.where, x.path = fmt.Sprintf("case %s, sequence %d", c.Name, j), fmt.Sprintf("steer.%s.seq.%d", c.Name, j)
			x.sites, x.spec, x.told, x.insight = c.Sites, specs[c.Name], c.Sequences[j], true
			if err := d.readGreedy(&x); err != nil {
				return err
			}
			d.steer = append(d.steer, x)
		}
	}
	return d.checkTold(d.steer)
}

func (d *dump) readMixed(specs map[string]steering.Spec, sites map[string][]site) error {
	for b, row := range d.info.Mixed.Rows {
		x := text{where: fmt.Sprintf("row %d (%s)", b, row.Config), path: fmt.Sprintf("mixed.%d", b), ids: row.IDs, prompt: row.PromptLen,
			sites: sites[row.Config], spec: specs[row.Config], told: map[string]told{}}
		if _, ok := specs[row.Config]; !ok {
			return fmt.Errorf("%s: row %d of mixed has the config %q, which is no case", dumpJSON, b, row.Config)
		}
		if x.prompt < 1 || x.prompt > len(x.ids) {
			return fmt.Errorf("%s: row %d of mixed: the prompt has %d of %d tokens", dumpJSON, b, x.prompt, len(x.ids))
		}
		for i, id := range x.ids {
			if id < 0 || int(id) >= d.cfg.VocabSize {
				return fmt.Errorf("%s: row %d of mixed holds id %d at %d, the vocabulary has %d", dumpJSON, b, id, i, d.cfg.VocabSize)
			}
		}
		for ref, m := range map[string]mixedTold{refF32: d.info.Mixed.F32, refBF16: d.info.Mixed.BF16} {
			var y told
			if b < len(m.Sites) {
				y.Sites = m.Sites[b]
			}
			if b < len(m.GreedyGateMargin) {
				y.GreedyGateMargin = m.GreedyGateMargin[b]
			}
			x.told[ref] = y
		}
		if err := d.readGreedy(&x); err != nil {
			return err
		}
		d.mixed = append(d.mixed, x)
	}
	return d.checkTold(d.mixed)
}

// readGreedy reads the float32 continuation of a text, if the dump has one.
func (d *dump) readGreedy(x *text) (err error) {
	if !d.has(x.name(refF32, "greedy")) {
		return nil
	}
	if x.greedy, err = d.tokens(x.name(refF32, "greedy")); err != nil {
		return err
	}
	x.margin, err = d.floats(x.name(refF32, "greedy_margin"), len(x.greedy))
	return err
}

// checkTold requires statistics that are there to be of the text's sites.
func (d *dump) checkTold(texts []text) error {
	for _, x := range texts {
		for _, ref := range slices.Sorted(maps.Keys(x.told)) {
			for what, sites := range map[string][]did{"sites": x.told[ref].Sites, "greedy_sites": x.told[ref].GreedySites} {
				if sites != nil && len(sites) != len(x.sites) {
					return fmt.Errorf("%s: %s: %s.%s has %d entries, there are %d sites", dumpJSON, x.where, ref, what, len(sites), len(x.sites))
				}
				for s := range sites {
					if sites[s].Layer != x.sites[s].Layer {
						return fmt.Errorf("%s: %s: %s.%s[%d] is of layer %d, the site of layer %d", dumpJSON, x.where, ref, what, s,
							sites[s].Layer, x.sites[s].Layer)
					}
				}
			}
		}
	}
	return nil
}

// seen is what the sites of a text saw and did, token by token, by one reference.
type seen struct {
	rho  [][]float32 // [S][T]
	gate [][]bool    // [S][T]
}

// readSeen reads rho and gate.
func (d *dump) readSeen(x *text, ref string) (s seen, err error) {
	n := len(x.ids)
	rho, err := d.floats(x.name(ref, "rho"), len(x.sites), n)
	if err != nil {
		return s, err
	}
	name := x.name(ref, "gate")
	t, err := d.tensor(name)
	if err != nil {
		return s, err
	}
	if t.DType != safetensors.U8 || !slices.Equal(t.Shape, []int{len(x.sites), n}) {
		return s, fmt.Errorf("%s: tensor %q is %s %v, want U8 %v", DumpName, name, t.DType, t.Shape, []int{len(x.sites), n})
	}
	for i := range x.sites {
		s.rho = append(s.rho, rho[i*n:(i+1)*n])
		gate := make([]bool, n)
		for at, g := range t.Data[i*n : (i+1)*n] {
			gate[at] = g != 0
		}
		s.gate = append(s.gate, gate)
	}
	return s, nil
}

// traced is what a trace saw and did, along the directions of the dump: a negative entry acts along the negated one.
func (x *text) traced(t *engine.Trace) seen {
	s := seen{rho: make([][]float32, len(x.sites)), gate: make([][]bool, len(x.sites))}
	for _, site := range t.Sites { // one for each entry: an entry has one layer
		rho := slices.Clone(site.Rho)
		if x.spec[site.Entry].Negative {
			for i := range rho {
				rho[i] = -rho[i]
			}
		}
		gate := make([]bool, len(site.Delta))
		for i, d := range site.Delta {
			gate[i] = d != 0
		}
		s.rho[site.Entry], s.gate[site.Entry] = rho, gate
	}
	return s
}

// doubt says whether a projection that may be off by slack may fall on the other side of a site's boundary, or cap.
func (s *site) doubt(rho float32, slack float64) (gate, limit bool) {
	r := float64(rho)
	switch s.Method {
	case steering.StTP.String(), steering.StMP.String():
		gate = math.Abs(r-s.M) <= slack
	}
	if s.Cap != nil {
		target := r + 2*s.Alpha*(s.M-r)
		limit = math.Abs(target-*s.Cap) <= slack*math.Abs(1-2*s.Alpha)
	}
	return gate, limit
}

// gain is by how much the length of a site's edit may change when the projection does by 1.
func (s *site) gain() float64 {
	switch s.Method {
	case steering.SwFC.String():
		return 0
	case steering.StMP.String():
		return max(1, 2*math.Abs(s.Alpha)) // 1 where the cap holds
	}
	return 1
}

// short shortens a list of problems, of which the first say enough.
func short(problems []string) []string {
	const most = 5
	if len(problems) <= most {
		return problems
	}
	return append(slices.Clone(problems[:most]), fmt.Sprintf("and %d more", len(problems)-most))
}
