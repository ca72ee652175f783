// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
)

// The files that Write makes: to look at, to read, and for programs.
const (
	ReportPage = "benchmark.html"
	ReportText = "benchmark.md"
	ReportData = "benchmark.json"
)

//go:embed page.html
var pageText string

func page() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"bars":    func(w *Work) template.HTML { return w.bars() },
		"figure":  figure,
		"ratio":   ratio,
		"percent": percent,
		"gigabytes": func(bytes uint64) string {
			return fmt.Sprintf("%.0f GiB", float64(bytes)/(1<<30))
		},
	}).Parse(pageText))
}

// Write writes the report into a directory, which is made if need be.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := r.Page()
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{ReportPage: text, ReportText: []byte(r.Markdown()), ReportData: append(data, '\n')} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// section is a part of the page, with the works that belong there.
type section struct {
	Title, About string
	Works        []*Work
}

// Page writes the report as one HTML page, which needs nothing else.
func (r *Report) Page() ([]byte, error) {
	sections := []section{
		{Title: "Dropped", About: "What nobody asked for. The measure is an XDP program of two instructions that drops everything."},
		{Title: "Let in", About: "Through the filter and the stack, as far as a socket whose filter keeps nothing. The measure is an XDP program that passes everything."},
		{Title: "Through a real TCP stack", About: "Between two network namespaces, with devices as the kernel makes them. More is better."},
		{Title: "Beside packets", About: "One port opened, and the program alone."},
	}
	for i := range r.Works {
		w := &r.Works[i]
		switch {
		case w.Point || w.Unit == Entries:
		case w.Unit == Gigabits || w.Unit == Connections:
			sections[2].Works = append(sections[2].Works, w)
		case w.Baseline == keyDrop:
			sections[0].Works = append(sections[0].Works, w)
		case w.Baseline == keyPass:
			sections[1].Works = append(sections[1].Works, w)
		default:
			sections[3].Works = append(sections[3].Works, w)
		}
	}
	type chart struct {
		Title string
		SVG   template.HTML
	}
	var curves []chart
	for _, c := range []struct{ name, title, what string }{
		{curvePorts, "A closed port, as more ports are open", "open ports"},
		{curveFlows, "An established packet, as more flows live", "flows, met at random"},
	} {
		if svg := r.lines(c.name, c.title, c.what); svg != "" {
			curves = append(curves, chart{c.title, svg})
		}
	}
	var b bytes.Buffer
	err := page().Execute(&b, map[string]any{"Report": r, "Sections": sections, "Curves": curves})
	return b.Bytes(), err
}

// Met, Short and Measured count the targets.
func (r *Report) Met() int      { return r.targetsThat(Met) }
func (r *Report) Short() int    { return r.targetsThat(Short) }
func (r *Report) Measured() int { return r.Met() + r.Short() }

func (r *Report) targetsThat(verdict string) (n int) {
	for _, t := range r.Targets {
		if t.Verdict == verdict {
			n++
		}
	}
	return n
}

// Limit writes a target with the way in which it limits.
func (t TargetResult) Limit() string {
	if t.Least {
		return "≥ " + t.Target
	}
	return "≤ " + t.Target
}
