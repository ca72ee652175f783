// SPDX-License-Identifier: Apache-2.0

package bench

import "time"

// Report is what a run has found.
type Report struct {
	Version string         `json:"version"`
	Began   time.Time      `json:"began"`
	Seconds float64        `json:"seconds"`
	Machine Machine        `json:"machine"`
	Method  Method         `json:"method"`
	Works   []Work         `json:"works"`
	Targets []TargetResult `json:"targets"`
	LeftOut []LeftOut      `json:"left_out"`
}

// Method is how the packets were sent.
type Method struct {
	Generator  string `json:"generator"`
	Protocol   string `json:"protocol"`
	Interfaces string `json:"interfaces"`
	Rounds     int    `json:"rounds"`
	Frames     int    `json:"frames"` // the most of a run
}

// Units of figures.
const (
	Nanoseconds  = "ns"
	Microseconds = "µs"
	Gigabits     = "Gb/s"
	Connections  = "conn/s"
	Entries      = "entries"
	Megabytes    = "MB"
)

// Work is one kind of work, and what it cost each subject.
type Work struct {
	Key      string `json:"key"`
	Title    string `json:"title"`
	Unit     string `json:"unit"`
	Baseline string `json:"baseline,omitempty"` // the subject whose ratio is 1
	Curve    string `json:"curve,omitempty"`    // it is a point of this curve,
	X        int    `json:"x,omitempty"`        // at this place,
	Point    bool   `json:"point,omitempty"`    // and nothing else
	Rows     []Row  `json:"rows"`
}

// Row is the figure of one subject.
type Row struct {
	Subject string    `json:"subject"`
	Title   string    `json:"title"`
	Figure  *Spread   `json:"figure,omitempty"` // of the rounds, in the work's unit
	Ratio   *Spread   `json:"ratio,omitempty"`  // to the baseline in the same round
	Mpps    float64   `json:"mpps,omitempty"`
	Frames  uint64    `json:"frames,omitempty"` // of all rounds
	Lost    float64   `json:"lost,omitempty"`   // part of the frames that never arrived; only between real interfaces
	Checked string    `json:"checked,omitempty"`
	Invalid string    `json:"invalid,omitempty"` // why there is no figure
	Rounds  []float64 `json:"rounds,omitempty"`
}

// LeftOut is a measurement that was not made, and why.
type LeftOut struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// HigherIsBetter returns which way a figure is good.
func (w *Work) HigherIsBetter() bool { return w.Unit == Gigabits || w.Unit == Connections }

// Row returns the row of a subject, or nil.
func (w *Work) Row(subject string) *Row {
	for i := range w.Rows {
		if w.Rows[i].Subject == subject {
			return &w.Rows[i]
		}
	}
	return nil
}

// Work returns a work by its key, or nil.
func (r *Report) Work(key string) *Work {
	for i := range r.Works {
		if r.Works[i].Key == key {
			return &r.Works[i]
		}
	}
	return nil
}

// finish computes what follows from the rounds.
func (w *Work) finish() {
	base := w.Row(w.Baseline)
	for i := range w.Rows {
		r := &w.Rows[i]
		r.Figure, r.Ratio, r.Mpps = nil, nil, 0
		if r.Invalid != "" {
			r.Rounds = nil
			continue
		}
		r.Figure = spread(r.Rounds)
		if r.Figure != nil && w.Unit == Nanoseconds && r.Frames > 0 {
			r.Mpps = 1000 / r.Figure.Median
		}
		if base != nil && base.Invalid == "" {
			r.Ratio = spread(ratios(r.Rounds, base.Rounds))
		}
	}
}

func (r *Report) leaveOut(what, why string) {
	for _, l := range r.LeftOut {
		if l.What == what && l.Why == why {
			return
		}
	}
	r.LeftOut = append(r.LeftOut, LeftOut{what, why})
}
