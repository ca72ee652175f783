// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a report in which something of everything happens: met, short, invalid, lost, a curve.
func sample() *Report {
	r := &Report{
		Version: "v1 <test>",
		Began:   time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
		Seconds: 60,
		Machine: Machine{Kernel: "6.18 x86_64", CPU: "A & B", CPUs: 2, Governor: "not shown", Memory: 8 << 30, Load: "0.10 0.20 0.30",
			Driver: "veth", Programs: map[string]string{"nft": "v1.0.6"}},
		Method: Method{Generator: "XDP live frames", Protocol: "tcp", Interfaces: "a veth pair", Rounds: 3, Frames: 1000},
		Works: []Work{
			{Key: "closed", Title: "Closed port", Unit: Nanoseconds, Baseline: keyDrop, Curve: curvePorts, X: 1, Rows: []Row{
				{Subject: keyDrop, Title: "bare XDP_DROP", Rounds: []float64{100, 200, 150}, Frames: 3000, Checked: "the device"},
				{Subject: keyPortcullis, Title: "Portcullis", Rounds: []float64{110, 220, 165}, Frames: 3000, Checked: "the rule"},
				{Subject: keyNft, Title: "nft", Rounds: []float64{900, 1800}, Frames: 3000, Invalid: "the rule counted 2 of 1000 frames"},
			}},
			{Key: "ports-10k", Title: "Closed port, 10,000 open ports", Unit: Nanoseconds, Baseline: keyDrop, Curve: curvePorts, X: 10000, Rows: []Row{
				{Subject: keyDrop, Title: "bare XDP_DROP", Rounds: []float64{100, 100, 100}, Frames: 3000},
				{Subject: keyPortcullis, Title: "Portcullis", Rounds: []float64{120, 120, 120}, Frames: 3000, Lost: 0.5},
			}},
			{Key: "stream-1", Title: "Bulk TCP, 1 stream", Unit: Gigabits, Baseline: keyNone, Rows: []Row{
				{Subject: keyTC, Title: "Portcullis, TC", Rounds: []float64{9.7, 9.9, 9.8}},
				{Subject: keyNone, Title: "no firewall", Rounds: []float64{10, 10, 10}},
			}},
			{Key: "program", Title: "Program alone", Unit: Nanoseconds, Baseline: keyEmpty, Rows: []Row{
				{Subject: keyEmpty, Title: "empty", Rounds: []float64{10, 20, 30}},
				{Subject: keyPortcullis, Title: "Portcullis", Rounds: []float64{24, 34, 45}},
			}},
		},
		LeftOut: []LeftOut{{"xdp-filter", "it is not installed"}},
	}
	for i := range r.Works {
		r.Works[i].finish()
	}
	r.Targets = judge(r)
	return r
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	w := sample().Work("closed")
	ours := w.Row(keyPortcullis)
	if ours.Ratio.Median < 1.0999 || ours.Ratio.Median > 1.1001 || ours.Ratio.High-ours.Ratio.Low > 1e-9 {
		t.Errorf("the ratio is %+v: each round it is 1.1, though no two rounds are alike", *ours.Ratio)
	}
	if *ours.Figure != (Spread{165, 137.5, 192.5}) {
		t.Errorf("the figure is %+v", *ours.Figure)
	}
}

func TestInvalidRowsHaveNoFigure(t *testing.T) {
	r := sample()
	row := r.Work("closed").Row(keyNft)
	if row.Figure != nil || row.Ratio != nil || row.Rounds != nil || row.Mpps != 0 {
		t.Errorf("an invalid row has a figure: %+v", row)
	}
	for _, rows := range r.Tables() {
		if slices.ContainsFunc(rows, func(row []string) bool { return row[0] == "nft" && strings.HasPrefix(row[1], "invalid: ") }) {
			return
		}
	}
	t.Error("the table does not say so")
}

func TestEmulationIsTold(t *testing.T) {
	r := sample()
	for _, told := range []bool{false, true} {
		r.Machine.Emulated = told
		page, err := r.Page()
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range map[string]string{"text": r.Markdown(), "page": string(page)} {
			if strings.Contains(text, "rates mean nothing") != told {
				t.Errorf("%s: emulated %v, but it says %v", form, told, !told)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	found := make(map[string]TargetResult)
	for _, result := range sample().Targets {
		found[result.Title] = result
	}
	for title, want := range map[string][2]string{
		"Default drop, closed port, one source":         {"×1.100", Met},
		"The same with 10,000 open ports":               {"×1.200", Short},
		"Bulk TCP, TC mode, of no firewall":             {"×0.980", Met}, // at least, not at most
		"Bulk TCP, native XDP, of pass-only":            {"", Absent},
		"Program alone, closed port, over an empty one": {"+14 ns", Met},
		"Established, 1 flow":                           {"", Absent},
	} {
		if got := found[title]; got.Found != want[0] || got.Verdict != want[1] {
			t.Errorf("%s: %q, %s; want %q, %s", title, got.Found, got.Verdict, want[0], want[1])
		}
	}
	// A baseline without figure is none to be compared with.
	r := sample()
	r.Work("closed").Row(keyDrop).Invalid = "it was miscounted"
	for i := range r.Works {
		r.Works[i].finish()
	}
	if got := judge(r)[0]; got.Verdict != Absent {
		t.Errorf("a target against an invalid row is %s", got.Verdict)
	}
}

func TestSeen(t *testing.T) {
	for _, c := range []struct {
		name     string
		fate     fate
		after    counts
		lossless bool
		n        uint64
		by       string // empty: refused
	}{
		{"dropped, by the device", dropped, counts{device: 10}, true, 10, "the device"},
		{"dropped, by the rule", dropped, counts{device: 10, rule: 10, hasRule: true}, true, 10, "the rule"},
		{"dropped, by another rule", dropped, counts{device: 10, rule: 9, hasRule: true}, true, 0, ""},
		{"dropped, and one too many", dropped, counts{device: 11}, false, 0, ""},
		{"let in, by the sink", opened, counts{device: 10, sink: 10}, true, 10, "the sink"},
		{"let in, but not by the rule", opened, counts{device: 10, sink: 10, rule: 0, hasRule: true}, true, 0, ""},
		{"let in, and lost behind it", established, counts{device: 10, sink: 8, rule: 10, hasRule: true}, true, 0, ""},
		{"lost on a real cable", opened, counts{device: 8, sink: 8, rule: 8, hasRule: true}, false, 8, "the rule and the sink"},
		{"lost on a veth pair", opened, counts{device: 8, sink: 8, rule: 8, hasRule: true}, true, 0, ""},
		{"all lost", dropped, counts{}, false, 0, ""},
	} {
		n, by, err := seen(c.fate, counts{}, c.after, 10, c.lossless)
		if n != c.n || by != c.by || (err == nil) != (c.by != "") {
			t.Errorf("%s: %d, %q, %v", c.name, n, by, err)
		}
	}
}

// The page stands in testdata as it should be; -update writes what it is.
func TestPageAndData(t *testing.T) {
	dir := t.TempDir()
	if err := sample().Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ReportPage, ReportText, ReportData} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not as in testdata: look at what -update changes", name)
		}
	}
	text, _ := os.ReadFile(filepath.Join(dir, ReportPage))
	for _, outside := range []string{"http://", "https://", "src=", "@import", "<script", "<test>"} {
		if bytes.Contains(text, []byte(outside)) {
			t.Errorf("the page has %q in it", outside)
		}
	}
	var back Report
	data, _ := os.ReadFile(filepath.Join(dir, ReportData))
	if err := json.Unmarshal(data, &back); err != nil || back.Work("closed").Row(keyPortcullis).Figure.Median != 165 {
		t.Errorf("the JSON does not read back: %v", err)
	}
}

func TestChartsAreXMLWithTitles(t *testing.T) {
	r := sample()
	for name, text := range map[string]string{
		"bars":  string(r.Work("closed").bars()),
		"lines": string(r.lines(curvePorts, "Title & more", "open ports")),
	} {
		d := xml.NewDecoder(strings.NewReader(text))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
		}
		if !strings.Contains(text, "<title ") || !strings.Contains(text, "<desc ") {
			t.Errorf("%s has no title or description", name)
		}
	}
	if svg := string(r.Work("closed").bars()); strings.Contains(svg, ">nft<") {
		t.Error("a row without figure has a bar")
	}
}

func TestAxis(t *testing.T) {
	for _, c := range []struct{ values, want []float64 }{
		{[]float64{150, 500000}, []float64{100, 1000, 10000, 100000, 1000000}},
		{[]float64{1030, 2700}, []float64{1000, 2000, 5000}},
		{[]float64{1, 60000}, []float64{1, 10, 100, 1000, 10000, 100000}},
		{[]float64{2000, 2000}, []float64{2000, 5000}},
	} {
		a := newAxis(c.values, 0, 100)
		if !slices.Equal(a.ticks, c.want) || a.at(c.want[0]) != 0 || a.at(c.want[len(c.want)-1]) != 100 {
			t.Errorf("%v: ticks at %v, want %v", c.values, a.ticks, c.want)
		}
	}
}

func TestFigures(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{figure(164.4, Nanoseconds), "164 ns"},
		{figure(12345, Nanoseconds), "12,345 ns"},
		{figure(240000, Nanoseconds), "240 µs"},
		{figure(9.94, Microseconds), "9.9 µs"},
		{figure(4321, Microseconds), "4.32 ms"},
		{figure(15.2, Gigabits), "15.2 Gb/s"},
		{figure(14500, Connections), "14,500 conn/s"},
		{figure(0, Entries), "0 entries"},
		{ratio(1.104), "×1.10"}, {ratio(17.62), "×17.6"}, {ratio(1287.4), "×1,287"},
		{count(1, "flow"), "1 flow"}, {count(1000000, "flow"), "1,000,000 flows"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
