// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
)

// Charts are drawn in units of a pixel of the page at its full width. Colours are classes: the page has both a light
// and a dark set of them.
const (
	chartWidth  = 720
	labelWidth  = 190
	valueWidth  = 150
	barHeight   = 18
	barDistance = 26
)

// canvas is an SVG that is being drawn.
type canvas struct{ strings.Builder }

func newCanvas(width, height int, id, title, description string) *canvas {
	c := &canvas{}
	fmt.Fprintf(c, `<svg viewBox="0 0 %d %d" role="img" aria-labelledby="%s-t %s-d">`, width, height, id, id)
	fmt.Fprintf(c, `<title id="%s-t">%s</title><desc id="%s-d">%s</desc>`, id, html.EscapeString(title), id, html.EscapeString(description))
	return c
}

func (c *canvas) text(x, y float64, class, text string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, html.EscapeString(text))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

func (c *canvas) end() template.HTML {
	c.WriteString("</svg>")
	return template.HTML(c.String()) // #nosec: everything that comes from outside was escaped
}

// group is the colour of a subject: ours, the measure, or others.
func group(subject string) string {
	switch {
	case strings.HasPrefix(subject, keyPortcullis):
		return "ours"
	case slices.Contains([]string{keyDrop, keyPass, keyEmpty, keyFloor}, subject):
		return "base"
	}
	return "peer"
}

// bars draws a work: one bar a subject, the best first.
func (w *Work) bars() template.HTML {
	var rows []*Row
	most := 0.0
	for i := range w.Rows {
		if r := &w.Rows[i]; r.Figure != nil {
			rows = append(rows, r)
			most = max(most, r.Figure.High)
		}
	}
	if len(rows) == 0 || most == 0 {
		return ""
	}
	slices.SortStableFunc(rows, func(a, b *Row) int {
		if (a.Figure.Median < b.Figure.Median) != w.HigherIsBetter() {
			return -1
		}
		return 1
	})
	var said []string
	for _, r := range rows {
		said = append(said, r.Title+" "+w.label(r))
	}
	c := newCanvas(chartWidth, len(rows)*barDistance+4, w.Key, w.Title, strings.Join(said, "; "))
	most = bounded(rows, most)
	scale := (chartWidth - labelWidth - valueWidth) / most
	for i, r := range rows {
		y := float64(i*barDistance) + 4
		middle := y + barHeight/2
		c.text(labelWidth-10, middle+4, "label "+group(r.Subject), r.Title)
		length, high := max(1, min(r.Figure.Median, most)*scale), labelWidth+min(r.Figure.High, most)*scale
		fmt.Fprintf(c, `<rect x="%d" y="%.1f" width="%.1f" height="%d" rx="2" class="bar %s"/>`, labelWidth, y, length, barHeight, group(r.Subject))
		if r.Figure.Median > most { // it goes on beyond the page
			x := labelWidth + length - 34
			fmt.Fprintf(c, `<path d="M%.1f %.1fl6 %d h8 l-6 -%d z" class="break"/>`, x, y-1, barHeight+2, barHeight+2)
		} else if r.Figure.High > r.Figure.Low {
			c.line(labelWidth+r.Figure.Low*scale, middle, high, middle, "spread")
		}
		c.text(high+8, middle+4, "value", w.label(r))
	}
	return c.end()
}

// bounded returns the length of the longest bar: one that would leave nothing of the others to be seen is cut.
func bounded(rows []*Row, most float64) float64 {
	var lengths []float64
	for _, r := range rows {
		lengths = append(lengths, r.Figure.Median)
	}
	slices.Sort(lengths)
	if n := len(lengths); n > 1 && lengths[n-1] > 5*lengths[n-2] {
		return 1.25 * lengths[n-2]
	}
	return most
}

// label is what stands beside a bar.
func (w *Work) label(r *Row) string {
	text := figure(r.Figure.Median, w.Unit)
	if r.Ratio != nil && r.Subject != w.Baseline {
		text += "  " + ratio(r.Ratio.Median)
	}
	return text
}

// Where a curve is drawn on its canvas.
const (
	curveLeft, curveRight = 64, 540
	curveTop, curveBottom = 14, 300
	curveHeight           = 344
)

// series is one subject over the points of a curve.
type series struct {
	subject, title string
	x, y           []float64
}

// curve gathers the works that are points of a curve.
func (r *Report) curve(name string) (out []series) {
	var points []*Work
	for i := range r.Works {
		if r.Works[i].Curve == name {
			points = append(points, &r.Works[i])
		}
	}
	slices.SortFunc(points, func(a, b *Work) int { return a.X - b.X })
	for _, w := range points {
		for _, row := range w.Rows {
			if row.Figure == nil {
				continue
			}
			at := slices.IndexFunc(out, func(s series) bool { return s.subject == row.Subject })
			if at < 0 {
				at = len(out)
				out = append(out, series{subject: row.Subject, title: row.Title})
			}
			out[at].x = append(out[at].x, float64(w.X))
			out[at].y = append(out[at].y, row.Figure.Median)
		}
	}
	return slices.DeleteFunc(out, func(s series) bool { return len(s.x) < 2 })
}

// axis maps values to a canvas by their logarithms, from one tick to another.
type axis struct {
	ticks     []float64
	low, high float64
}

// newAxis puts ticks at powers of ten, and where these are few also at twice and five times as much.
func newAxis(values []float64, low, high float64) axis {
	least, most := slices.Min(values), slices.Max(values)
	steps := []float64{1, 2, 5}
	if most/least > 100 {
		steps = steps[:1]
	}
	a := axis{low: low, high: high}
	for power := math.Floor(math.Log10(least)); ; power++ {
		for _, step := range steps {
			tick := step * math.Pow(10, power)
			if tick <= least {
				a.ticks = a.ticks[:0]
			}
			a.ticks = append(a.ticks, tick)
			if tick >= most && len(a.ticks) > 1 {
				return a
			}
		}
	}
}

func (a axis) at(value float64) float64 {
	first, last := math.Log10(a.ticks[0]), math.Log10(a.ticks[len(a.ticks)-1])
	return a.low + (math.Log10(value)-first)/(last-first)*(a.high-a.low)
}

// lines draws a curve: both axes are logarithmic, so what is flat costs the same at any size.
func (r *Report) lines(name, title, what string) template.HTML {
	all := r.curve(name)
	if len(all) == 0 {
		return ""
	}
	var xs, ys []float64
	var said []string
	for _, s := range all {
		xs, ys = append(xs, s.x...), append(ys, s.y...)
		last := len(s.x) - 1
		said = append(said, fmt.Sprintf("%s: %s at %s, %s at %s", s.title, figure(s.y[0], Nanoseconds), thousands(int(s.x[0])),
			figure(s.y[last], Nanoseconds), thousands(int(s.x[last]))))
	}
	c := newCanvas(chartWidth, curveHeight, "curve-"+name, title, strings.Join(said, "; "))
	x, y := newAxis(xs, curveLeft, curveRight), newAxis(ys, curveBottom, curveTop)
	for _, v := range y.ticks {
		c.line(curveLeft, y.at(v), curveRight, y.at(v), "grid")
		c.text(curveLeft-8, y.at(v)+4, "tick end", short(v)+" ns")
	}
	for _, v := range x.ticks {
		c.line(x.at(v), curveBottom, x.at(v), curveBottom+5, "grid")
		c.text(x.at(v), curveBottom+19, "tick middle", short(v))
	}
	c.text((curveLeft+curveRight)/2, curveBottom+38, "tick middle", what)
	heights := apart(all, y)
	for i, s := range slices.Backward(all) { // ours are among the first, and belong on top
		var points []string
		for j := range s.x {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x.at(s.x[j]), y.at(s.y[j])))
		}
		fmt.Fprintf(c, `<polyline points="%s" class="curve %s"/>`, strings.Join(points, " "), s.subject)
		for _, p := range points {
			px, py, _ := strings.Cut(p, ",")
			fmt.Fprintf(c, `<circle cx="%s" cy="%s" r="3" class="dot %s"/>`, px, py, s.subject)
		}
		c.text(curveRight+10, heights[i]+4, "name "+s.subject, s.title)
	}
	return c.end()
}

// apart returns the heights of the names beside the lines, which must not lie on one another.
func apart(all []series, y axis) []float64 {
	const distance = 15
	order := make([]int, len(all))
	out := make([]float64, len(all))
	for i, s := range all {
		order[i], out[i] = i, y.at(s.y[len(s.y)-1])
	}
	slices.SortFunc(order, func(a, b int) int {
		if out[a] < out[b] {
			return -1
		}
		return 1
	})
	for n, i := range order {
		if n > 0 {
			out[i] = max(out[i], out[order[n-1]]+distance)
		}
	}
	// Pushed beyond the axis? Then all above move up.
	for n := len(order) - 1; n >= 0; n-- {
		limit := float64(curveBottom)
		if n < len(order)-1 {
			limit = out[order[n+1]] - distance
		}
		out[order[n]] = min(out[order[n]], limit)
	}
	return out
}

// short writes a tick.
func short(value float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e6, "M"}, {1e3, "k"}} {
		if value >= unit.size {
			return fmt.Sprintf("%.0f%s", value/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.0f", value)
}
