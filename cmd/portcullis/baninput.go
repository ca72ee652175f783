// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
)

// Lines of standard input are taken as they come: one that comes alone at once, and what is in a file by the hundred
// thousand.
const (
	longestLine  = 4096    // bytes
	linesAtOnce  = 1 << 19 // that are put in force in one step
	linesARead   = 4096
	readsAhead   = 64
	manyLines    = 1024                  // after which more are waited for
	moreTime     = 10 * time.Millisecond // and for how long
	mostProblems = 1000                  // that are told one by one, in
	problemTime  = time.Minute           // as a pipe may stay open for good
)

// errTold is returned where standard error says already what is wrong.
var errTold = errors.New("")

// inputLines are some lines of standard input.
type inputLines struct {
	read    int // how many there were, and
	first   int // the number of the first of them
	bans    []bans.Line
	numbers []int32 // of the lines of bans
	bad     []badLine
}

// badLine is a line that could not be used.
type badLine struct {
	number int
	err    error
}

func (l *inputLines) append(more *inputLines) {
	if l.read == 0 {
		l.first = more.first
	}
	l.read += more.read
	l.bans, l.numbers, l.bad = append(l.bans, more.bans...), append(l.numbers, more.numbers...), append(l.bad, more.bad...)
}

// readLines sends the lines of an input as they come, some at a time.
func readLines(ctx context.Context, input io.Reader, defaults bans.Line) <-chan *inputLines {
	out := make(chan *inputLines, readsAhead)
	go func() {
		defer close(out)
		r := bufio.NewReaderSize(input, 256<<10)
		parser := bans.Parser{Defaults: defaults}
		var some *inputLines
		for n := 1; ; n++ {
			if some == nil {
				some = &inputLines{first: n}
			}
			text, long, err := readLine(r)
			if err == nil || len(text) > 0 {
				some.read++
				some.add(n, &parser, text, long)
			}
			if err != nil && !errors.Is(err, io.EOF) {
				some.read++
				some.bad = append(some.bad, badLine{n, fmt.Errorf("read standard input: %w", err)})
			}
			if some.read > 0 && (err != nil || some.read == linesARead || r.Buffered() == 0) {
				select {
				case out <- some:
				case <-ctx.Done():
					return
				}
				some = nil
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

// add reads a line, of which nothing is kept that is not in the result.
func (l *inputLines) add(number int, parser *bans.Parser, text []byte, long bool) {
	if long {
		l.bad = append(l.bad, badLine{number, errLongLine})
		return
	}
	line, ok, err := parser.Parse(text)
	switch {
	case err != nil:
		l.bad = append(l.bad, badLine{number, err})
	case ok:
		if l.bans == nil { // a pipe brings one line at a time
			l.bans, l.numbers = make([]bans.Line, 0, 1), make([]int32, 0, 1)
		}
		l.bans, l.numbers = append(l.bans, line), append(l.numbers, int32(number))
	}
}

// readLine reads a line, which is valid until the next one is read. Of one that is too long there is but the beginning.
func readLine(r *bufio.Reader) (text []byte, long bool, err error) {
	text, err = r.ReadSlice('\n')
	if long = len(text) > longestLine; long {
		text = slices.Clone(text[:longestLine]) // what follows takes its place
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return text, long, err
}

var errLongLine = fmt.Errorf("the line is longer than %d bytes", longestLine)

// nextLines returns the lines that there are, or waits for some. Without any, the input has ended.
func nextLines(ctx context.Context, from <-chan *inputLines) (lines *inputLines, err error) {
	lines = &inputLines{}
	select {
	case first := <-from:
		if first == nil {
			return lines, nil
		}
		lines = first
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for lines.read < linesAtOnce {
		var more *inputLines
		select {
		case more = <-from:
		default:
			if lines.read < manyLines {
				return lines, nil
			}
			select {
			case more = <-from:
			case <-time.After(moreTime):
			}
		}
		if more == nil {
			break
		}
		lines.append(more)
	}
	return lines, nil
}

// problems tells lines that could not be used, and keeps the first of them for JSON.
type problems struct {
	*app
	list     []banProblem
	unlisted int       // beside these
	began    time.Time // when the first was told of those that are counted in
	told     int       // and
	more     int       // that were not told
}

func (p *problems) add(line int, err error) {
	if time.Since(p.began) >= problemTime {
		p.tellMore()
		p.began, p.told = time.Now(), 0
	}
	if len(p.list) < mostProblems {
		p.list = append(p.list, banProblem{Line: line, Message: err.Error()})
	} else {
		p.unlisted++
	}
	if p.told >= mostProblems {
		p.more++
		return
	}
	p.told++
	p.complain(fmt.Errorf("line %d: %w", line, err))
}

func (p *problems) tellMore() {
	if p.more > 0 {
		p.complain(errors.New(moreLines(p.more)))
		p.more = 0
	}
}

func moreLines(n int) string {
	return fmt.Sprintf("%s could not be used", count(n, "more line", "more lines"))
}

// view returns what JSON says of the problems.
func (p *problems) view() []banProblem {
	if p.unlisted == 0 {
		return p.list
	}
	return append(p.list, banProblem{Message: moreLines(p.unlisted)})
}

// end returns the error by which the command ends.
func (p *problems) end() error {
	p.tellMore()
	if len(p.list) > 0 {
		return errTold
	}
	return nil
}

// warn prints warnings, and keeps the first of them for JSON.
func (p *problems) warn(kept, warnings []string) []string {
	p.app.warn(warnings...)
	return append(kept, warnings[:min(len(warnings), max(mostProblems-len(kept), 0))]...)
}

// banInput bans whom the lines of standard input name.
func (a *app) banInput(ctx context.Context, defaults bans.Line, force bool) error {
	if err := a.privileged(); err != nil {
		return err
	}
	// What main sets is for commands that are over soon, and need little.
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(math.MaxInt64)
	total := &firewall.BanReport{Warnings: []string{}}
	told := &problems{app: a, list: []banProblem{}}
	var failed error
	input := readLines(ctx, a.stdin, defaults)
	for {
		lines, err := nextLines(ctx, input)
		if failed = err; err != nil || lines.read == 0 {
			break
		}
		for _, l := range lines.bad {
			told.add(l.number, l.err)
		}
		if len(lines.bans) == 0 {
			continue
		}
		report, err := a.firewall.Ban(ctx, firewall.BanRequest{Force: force, Bans: lines.bans})
		if report != nil {
			total.Banned, total.Kept, total.Cut = total.Banned+report.Banned, total.Kept+report.Kept, total.Cut+report.Cut
			total.Warnings = told.warn(total.Warnings, report.Warnings)
			for _, r := range report.Refused {
				told.add(int(lines.numbers[r.Place]), fmt.Errorf("not banned: %w", r.Err))
			}
		}
		if errors.Is(err, loader.ErrNotRunning) || ctx.Err() != nil {
			failed = err
			break
		}
		if err != nil { // a pipe that stays open goes on with what comes next
			told.add(int(lines.numbers[0]), err)
		}
	}
	if failed != nil && total.Banned == 0 {
		return failed
	}
	err := a.print(banView{total, told.view()}, func() {
		a.printf("banned %s\n", count(total.Banned-total.Kept, "address or network", "addresses and networks"))
		a.printBans(total)
	})
	return errors.Join(err, failed, told.end())
}

// unbanInput ends the bans of whom the lines of standard input name.
func (a *app) unbanInput(ctx context.Context, isReason func(string) bool) error {
	if err := a.privileged(); err != nil {
		return err
	}
	total := &firewall.UnbanReport{Warnings: []string{}}
	told := &problems{app: a, list: []banProblem{}}
	missing := []netip.Prefix{}
	unnamed := 0 // beside these
	var failed error
	input := readLines(ctx, a.stdin, bans.Line{})
	for {
		lines, err := nextLines(ctx, input)
		if failed = err; err != nil || lines.read == 0 {
			break
		}
		for _, l := range lines.bad {
			told.add(l.number, l.err)
		}
		r := firewall.UnbanRequest{IsReason: isReason, Prefixes: make([]netip.Prefix, len(lines.bans))}
		for i := range lines.bans {
			r.Prefixes[i] = lines.bans[i].Prefix
		}
		report, err := a.firewall.Unban(ctx, r)
		if report != nil {
			total.Unbanned += report.Unbanned
			total.Warnings = told.warn(total.Warnings, report.Warnings)
			named := min(len(report.NotBanned), mostProblems-len(missing))
			missing, unnamed = append(missing, report.NotBanned[:named]...), unnamed+len(report.NotBanned)-named
		}
		if errors.Is(err, loader.ErrNotRunning) || ctx.Err() != nil {
			failed = err
			break
		}
		if err != nil {
			told.add(lines.first, err)
		}
	}
	if failed != nil && total.Unbanned == 0 {
		return failed
	}
	err := a.print(unbanView{total, texts(missing), told.view()}, func() {
		for _, p := range missing {
			a.printf("not banned: %s\n", bans.Text(p))
		}
		if unnamed > 0 {
			a.printf("not banned: %d more\n", unnamed)
		}
		a.printf("ended %s\n", count(total.Unbanned, "ban", "bans"))
	})
	return errors.Join(err, failed, told.end())
}
