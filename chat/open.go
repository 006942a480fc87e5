package chat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// This file finds the template of a model folder and the names of its special tokens, as transformers 5 does.

// ErrNoTemplate is returned by Open for a folder without a chat template: a base model.
var ErrNoTemplate = errors.New("no chat template")

const (
	configFile  = "tokenizer_config.json"
	mapFile     = "special_tokens_map.json"
	jinjaFile   = "chat_template.jinja"
	jinjaFolder = "additional_chat_templates"

	maxConfig = 64 << 20 // bytes
)

// Open reads the chat template of a model folder. chat_template.jinja and the files of additional_chat_templates
// come before the chat_template of tokenizer_config.json, which is a template or a list of templates with names. Of
// several templates "tool_use" is used where a conversation has tools, and "default" otherwise. The special tokens are
// those of tokenizer_config.json; for the tokenizer classes of Llama and Qwen, their defaults where it leaves them out.
func Open(dir string) (*Template, error) {
	config, err := readObject(filepath.Join(dir, configFile))
	if err != nil {
		return nil, err
	}
	tokens, err := specialTokens(dir, config)
	if err != nil {
		return nil, err
	}
	sources, err := templateFiles(dir)
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		if sources, err = configTemplates(config); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, configFile), err)
		}
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("%s: %w: neither %s nor chat_template in %s", dir, ErrNoTemplate, jinjaFile, configFile)
	}
	open := func(name string) (*Template, error) {
		s, ok := sources[name]
		if !ok {
			return nil, nil
		}
		return newTemplate(filepath.Join(dir, s.file), s.text, tokens)
	}
	t, err := open("default")
	if err != nil {
		return nil, err
	}
	tools, err := open("tool_use")
	if err != nil {
		return nil, err
	}
	if t == nil {
		var names []string
		for name := range sources {
			names = append(names, name)
		}
		sort.Strings(names)
		return nil, fmt.Errorf("%s: %w named \"default\", only %q", dir, ErrNoTemplate, names)
	}
	t.tools = tools
	return t, nil
}

type source struct{ file, text string }

// templateFiles reads the templates that are files, by name.
func templateFiles(dir string) (map[string]source, error) {
	found := map[string]source{}
	add := func(name, file string) error {
		text, err := readFile(filepath.Join(dir, file), maxTemplate)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		found[name] = source{file, string(text)}
		return err
	}
	if err := add("default", jinjaFile); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, jinjaFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".jinja")
		if !ok || e.IsDir() {
			continue
		}
		if err := add(name, filepath.Join(jinjaFolder, e.Name())); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func configTemplates(config *dict) (map[string]source, error) {
	v, _ := config.getString("chat_template")
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return map[string]source{"default": {configFile, v}}, nil
	case *list:
		found := map[string]source{}
		for i, item := range v.items {
			d, _ := item.(*dict)
			if d == nil {
				return nil, fmt.Errorf("chat_template[%d] is %s, want an object", i, jsonName(item))
			}
			name, _ := d.getString("name")
			text, _ := d.getString("template")
			n, isName := name.(string)
			s, isText := text.(string)
			if !isName || !isText {
				return nil, fmt.Errorf("chat_template[%d] must have a name and a template", i)
			}
			found[n] = source{configFile, s}
		}
		return found, nil
	}
	return nil, fmt.Errorf("chat_template is %s, want a string or an array", jsonName(v))
}

// named are the special tokens that every tokenizer can have.
var named = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

// classTokens are what transformers' tokenizer classes set where tokenizer_config.json does not mention a token.
var classTokens = map[string]map[string]string{
	"LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
	"Qwen2Tokenizer": {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
}

// specialTokens returns the special tokens by name: the named ones, any other key that ends with _token, and those of
// extra_special_tokens if it is an object. special_tokens_map.json counts only without added_tokens_decoder.
func specialTokens(dir string, config *dict) (map[string]string, error) {
	tokens := map[string]string{}
	class, _ := config.getString("tokenizer_class")
	name, _ := class.(string)
	for key, token := range classTokens[strings.TrimSuffix(name, "Fast")] {
		tokens[key] = token
	}
	read := func(file string, d *dict) error {
		for _, e := range d.entries {
			key := e.key.(string)
			if extra, ok := e.value.(*dict); ok && key == "extra_special_tokens" {
				for _, x := range extra.entries {
					if s, ok := tokenText(x.value); ok {
						tokens[x.key.(string)] = s
					}
				}
				continue
			}
			if !strings.HasSuffix(key, "_token") {
				continue
			}
			isNamed := false
			for _, n := range named {
				isNamed = isNamed || n == key
			}
			s, ok := tokenText(e.value)
			switch {
			case ok:
				tokens[key] = s
			case e.value == nil:
				delete(tokens, key)
			case isNamed:
				return fmt.Errorf("%s: %s is %s, want a string or an object with content", filepath.Join(dir, file), key, jsonName(e.value))
			}
		}
		return nil
	}
	if err := read(configFile, config); err != nil {
		return nil, err
	}
	if _, ok := config.getString("added_tokens_decoder"); !ok {
		legacy, err := readObject(filepath.Join(dir, mapFile))
		if err != nil {
			return nil, err
		}
		if err := read(mapFile, legacy); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// tokenText is the text of a token: a string, or the content of an object.
func tokenText(v value) (string, bool) {
	if d, ok := v.(*dict); ok {
		v, _ = d.getString("content")
	}
	s, ok := v.(string)
	return s, ok
}

// readObject reads a JSON object; a file that does not exist is an empty one.
func readObject(path string) (*dict, error) {
	data, err := readFile(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return &dict{}, nil
	}
	if err != nil {
		return nil, err
	}
	v, err := readJSON(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d, ok := v.(*dict)
	if !ok {
		return nil, fmt.Errorf("%s: want an object, have %s", path, jsonName(v))
	}
	return d, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return data, err
}
