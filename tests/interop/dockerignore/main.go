// What Docker makes of ignore files: reads a JSON list of {"text": ..., "paths": [...]} and
// writes for each a list of booleans, or the error. Each path comes after its directories.
package main

import (
	"encoding/json"
	"os"
	"path"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

type question struct {
	Text  string   `json:"text"`
	Paths []string `json:"paths"`
}

type answer struct {
	Ignored []bool `json:"ignored"`
	Error   string `json:"error"`
}

func decide(q question) ([]bool, error) {
	patterns, err := ignorefile.ReadAll(strings.NewReader(q.Text))
	if err != nil {
		return nil, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	known := map[string]patternmatcher.MatchInfo{".": {}}
	var ignored []bool
	for _, name := range q.Paths {
		hit, info, err := matcher.MatchesUsingParentResults(name, known[path.Dir(name)])
		if err != nil {
			return nil, err
		}
		known[name] = info
		ignored = append(ignored, hit)
	}
	return ignored, nil
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		panic(err)
	}
	answers := make([]answer, len(questions))
	for i, q := range questions {
		ignored, err := decide(q)
		answers[i].Ignored = ignored
		if err != nil {
			answers[i].Error = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
