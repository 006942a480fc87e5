// Package schedule decides what a batch of generating requests does next: continuous batching as a pure state
// machine.
//
// A [Core] has no clock, no goroutine, no lock and no I/O, and it has never heard of a graph or a device (the design
// of etcd/raft). Requests and the results of work go in; plans and events come out; the same calls in the same order
// give the same answers. One goroutine drives it:
//
//	for {
//	    // whatever arrived: core.Submit(request), publish(core.Cancel(id)...)
//	    plan, ok := core.Next()
//	    if !ok {
//	        // idle: wait for a Submit; the main cache holds nobody and may be released
//	    }
//	    result := execute(plan)             // the only slow line
//	    publish(core.Done(plan, result)...) // tokens and ends of requests
//	}
//
// # Memory
//
// Keys and values (KV) live in two places.
//
// The main cache has shape [Batch, KVLen]: Batch rows ("slots") of KVLen positions. A request that is decoding owns
// one slot. Batch and KVLen come from short ladders, because each pair is one compiled program; a [Layout] in a
// decode plan says when they change and which rows survive.
//
// A prefill leaves its KV outside the main cache. The very next plan is then a decode plan whose [Join]s say into
// which slot each row of that prefill goes; a row that no Join names is garbage. A prompt of more than Chunk tokens
// is prefilled in several plans, alone, in a staging cache of Plan.Staging positions that lives from its first chunk
// to its Join. There is at most one staging cache at a time.
//
// Nothing ever has to be erased: a Join overwrites positions 0 up to the prompt's end, decoding then writes one
// position after the other, and no row attends to a position that its present owner has not written. A program may
// therefore write anything into an empty slot.
//
// # The life of a request
//
//	Submit -> queued -> prefilling -> decoding -> finished
//
// Queued requests wait in order of arrival (FIFO; nothing overtakes). The head is admitted as soon as fewer than
// MaxBatch requests are prefilling or decoding. A prompt of at most Chunk tokens is prefilled in one plan, together
// with the short prompts that follow it directly, while rows x padded tokens stay within Chunk. The prefill of a
// prompt's last token samples the request's first token, each decode plan one more. A request finishes exactly once,
// by an [Event] whose Finish is not None; it is the last event of that request and means that everything held under
// its ID can be dropped.
//
// # Fairness
//
// While anyone is decoding, prefill and decode plans alternate as long as there is something to prefill: a decoding
// request never waits for more than one prefill plan (at most Chunk padded tokens of work), and a waiting prompt
// never waits for more than one decode step once there is room for it. All decoding requests take part in every
// decode plan.
//
// # Failure
//
// A failed plan ends the requests it contained and no others. A prefill touches nothing but its own rows. A failed
// decode plan ends everyone in the main cache, which is thereafter empty and is laid out anew: with donated buffers
// its content is lost. An error of a single row (Result.Errs) ends only that request.
package schedule
