// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress shows how far the benchmark is, on one line of a terminal. It is our own, as the libraries for it bring an
// HTTP server or regular expressions along, which every command would pay for at its start.
type progress struct {
	to          io.Writer // nil: nobody looks
	began       time.Time
	steps, done int
}

func newProgress(to io.Writer, steps int) *progress {
	return &progress{to: to, began: time.Now(), steps: steps}
}

const (
	barWidth     = 24
	eraseLine    = "\r\x1b[K"
	usualColumns = 80 // of a terminal that does not say
)

// step says what comes next.
func (p *progress) step(what string) {
	if p.to == nil {
		return
	}
	fmt.Fprint(p.to, eraseLine, p.line(what, columns(p.to), time.Since(p.began)))
	p.done++
}

// line is what is shown before a step, in no more columns than there are.
func (p *progress) line(what string, columns int, since time.Duration) string {
	steps := max(p.steps, p.done+1)
	full := barWidth * p.done / steps
	line := fmt.Sprintf("%3d%% [%s%s]", 100*p.done/steps, strings.Repeat("=", full), strings.Repeat(" ", barWidth-full))
	if p.done > 0 {
		line += fmt.Sprintf(" %v left", (since / time.Duration(p.done) * time.Duration(steps-p.done)).Round(time.Second))
	}
	text := []rune(line + "  " + what)
	return string(text[:max(0, min(len(text), columns-1))])
}

func columns(to io.Writer) int {
	if f, ok := to.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return usualColumns
}

// end takes the bar away.
func (p *progress) end() {
	if p.to != nil {
		fmt.Fprint(p.to, eraseLine)
	}
}
