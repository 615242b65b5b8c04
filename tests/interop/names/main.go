// What others make of a name or of a tar: the distribution project's package reference, and Go's
// archive/tar. `names` reads a JSON list of texts, `tars` of paths; each writes a list of answers.
package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	_ "crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"

	"github.com/distribution/reference"
)

type name struct {
	Domain string `json:"domain"`
	Path   string `json:"path"`
	Tag    string `json:"tag"`
	Digest string `json:"digest"`
	Error  string `json:"error"`
}

func parse(text string) (found name) {
	ref, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return name{Error: err.Error()}
	}
	found = name{Domain: reference.Domain(ref), Path: reference.Path(ref)}
	if tagged, ok := ref.(reference.Tagged); ok {
		found.Tag = tagged.Tag()
	}
	if digested, ok := ref.(reference.Digested); ok {
		found.Digest = digested.Digest().String()
	}
	return found
}

// Names and targets are hexadecimal: JSON would replace what is no UTF-8.
type entry struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Size   int64  `json:"size"`
	Target string `json:"target"`
	Sha256 string `json:"sha256"`
}

type listing struct {
	Entries []entry `json:"entries"`
	Error   string  `json:"error"`
}

func list(path string) (found listing) {
	found.Entries = []entry{}
	file, err := os.Open(path)
	if err != nil {
		return listing{Error: err.Error()}
	}
	defer file.Close()
	archive := tar.NewReader(bufio.NewReader(file))
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			found.Error = err.Error()
			return found
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, archive); err != nil {
			found.Error = err.Error()
			return found
		}
		found.Entries = append(found.Entries, entry{
			Name:   hex.EncodeToString([]byte(header.Name)),
			Kind:   string([]byte{header.Typeflag}),
			Size:   header.Size,
			Target: hex.EncodeToString([]byte(header.Linkname)),
			Sha256: hex.EncodeToString(sum.Sum(nil)),
		})
	}
}

func main() {
	var questions []string
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	answers := make([]any, len(questions))
	for i, question := range questions {
		if os.Args[1] == "names" {
			answers[i] = parse(question)
		} else {
			answers[i] = list(question)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
