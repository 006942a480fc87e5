// Package contrast makes steering vectors from contrastive data: texts of two classes, such as honest and dishonest answers
// to the same questions. It estimates the direction between the classes from their hidden states, says how much the estimate can
// be trusted, and hands it on as a steering.Vector.
//
// # From scenarios to a vector
//
// [ReadScenarios] reads prompts that a model answers under two system prompts, or prompts with two texts. [Extract] lets the model answer,
// captures the hidden states of the answers, pooled to one embedding for each text and layer, and fits:
//
//	scenarios, err := contrast.LoadScenarios("honesty.jsonl")
//	x, err := contrast.Extract(ctx, m, scenarios, contrast.ExtractOptions{Keep: "honesty.responses.jsonl"})
//	v, err := x.Vector(contrast.LogisticRegression)
//	layer, probes, err := x.ChooseLayer(ctx, m, contrast.LogisticRegression, nil)
//
// [Train] takes another way: the vector is trained by gradient through the frozen model, so that it makes one class of responses likelier
// than the other ([Contrastive]), or likely ([CE]).
//
// # Fitting
//
// [Fit] takes [Embeddings], the pooled hidden states of both classes at some layers, and returns a [Fitted]: for each layer what four
// estimators find, and the projections' statistics that StTP and StMP need. With E+ and E- the two classes' embeddings:
//
//	logistic    the weights w of a logistic regression between E+ and E- (C = 1 as scikit-learn means it, intercept not
//	            penalised); boundary m = -b/|w|. What arXiv 2604.08169 steers with.
//	diff_means  mean(E+) - mean(E-), as in contrastive activation addition
//	pca_diff    first principal axis of the pairs' differences, less their mean
//	pca_center  first principal axis of the pairs about each pair's own centre; both as repeng names them
//
// Everything is computed in float64 from float32 embeddings, for all layers at once, by a few compiled programs: one for all
// logistic regressions, those of the random halves for the stability included; two for PCA; one that turns the results into
// directions and projects the data on them.
//
// The logistic regression is solved by Newton's method and not by L-BFGS, which scikit-learn and the paper use. The optimum is unique,
// so the answer is the same, only sharper: L-BFGS stops where its line search does not see progress any more, which for embeddings
// of large norm is visibly off, while Newton's method converges quadratically and goes on to the limit of float64. It needs few steps, and
// since the weights are a combination of the M embeddings, a step works on M numbers instead of hidden_size. The linear
// systems are solved by conjugate gradients, whose one product with the [M, M] Gram matrix a turn is what compiled programs do well,
// and which, unlike a factorisation, needs no memory beyond vectors. See estimate_logistic.go.
//
// # Judging
//
// A probe's accuracy cannot rank layers: pooled hidden states of a large model are separable nearly everywhere. [NewReport] sets side
// by side what can be known without generating: Cohen's d, the stability of the direction between random halves of the data, and the
// cosines between the estimators, as a table, as JSON and as a plot over depth; several fits, of other poolings of the same texts, go
// into one report. [Rank] orders the layers by these. It is a heuristic that picks where to look first; what a vector does, only
// generated text shows.
package contrast
