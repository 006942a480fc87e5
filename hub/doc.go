// Package hub turns the name of a model, "org/name" or "org/name@revision", into a local folder that holds its files.
//
//	ref, err := hub.Parse("Qwen/Qwen3-0.6B")
//	client, err := hub.FromEnv()
//	snapshot, err := client.Pull(ctx, ref, hub.Model)
//	safetensors.Open(snapshot.Folder)
//
// It knows the hub's API and the cache's layout, and nothing about what is in the files but the list of shards.
//
// # The cache
//
// The folder is that of Hugging Face's own library (huggingface_hub), in both directions: what it fetched is used as it
// is and without a request, and what is fetched here it finds complete.
//
//	models--Qwen--Qwen3-0.6B/
//	    blobs/<hash>                    the bytes; the name is the SHA-256 (large files) or git's blob SHA-1
//	    blobs/<hash>.incomplete         a transfer that was cut off, or runs
//	    snapshots/<commit>/config.json  a link to ../../blobs/<hash>
//	    refs/main                       the commit of a branch or tag
//	    .no_exist/<commit>/<name>       a file that this commit does not have
//	.locks/models--Qwen--Qwen3-0.6B/<hash>.lock
//
// A snapshot is complete if it has config.json, the weights (model.safetensors, or an index and every shard that it
// names) and tokenizer.json, or a mark that the commit has none; where huggingface_hub left its listing of the commit
// (trees/<commit>.json), also all other files of the list below that the listing has. A revision that is complete is not
// looked up again, so a branch stays at the commit that was fetched until [Client].Update asks.
//
// # What is fetched
//
// config.json, generation_config.json, tokenizer.json, tokenizer_config.json, special_tokens_map.json,
// chat_template.jinja, and the weights that package safetensors would open: model.safetensors, else
// model.safetensors.index.json and its shards. Nothing else of a repository is looked at: no pickles, no folders.
//
// # What is trusted
//
// The names in a command line, the listing, the index and every header come from strangers. Names are checked against
// what they may be before they become a path or a URL. The files wanted lie at the top of a repository, so no name with
// a separator is ever used, and hashes and commits are 40 or 64 hexadecimal digits or refused.
//
// A file is written to <hash>.incomplete, under a lock that huggingface_hub respects. It gets its name once length and
// hash are those of the listing; else it is deleted, and the error gives both. So what stands under blobs is whole,
// whatever is killed, cut off or raced. (On a file system whose locks do not exclude, fill a cache from one process.)
//
// The token goes to the configured endpoint and, whatever it redirects to, to no other scheme, host or port. A redirect
// from https to http is refused, except to this machine.
//
// # Environment
//
// As in huggingface_hub: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH (the token in a file, $HF_HOME/token unless set),
// HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE and XDG_CACHE_HOME. See [FromEnv].
package hub
