// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
)

// Lines of standard input are taken as they come: one that comes alone at once, and what is in a file by the hundred
// thousand.
const (
	longestLine  = 4096    // bytes
	linesAtOnce  = 1 << 17 // that are put in force in one step
	linesARead   = 4096
	readsAhead   = 64
	manyLines    = 1024                  // after which more are waited for
	moreTime     = 10 * time.Millisecond // and for how long
	mostProblems = 1000                  // that are told one by one, in
	problemTime  = time.Minute           // as a pipe may stay open for good
)

// errTold is returned where standard error says already what is wrong.
var errTold = errors.New("")

// inputLine is a line of standard input.
type inputLine struct {
	number int
	text   string
	err    error // it is no line
}

// readLines sends the lines of an input as they come, some at a time.
func readLines(ctx context.Context, input io.Reader) <-chan []inputLine {
	out := make(chan []inputLine, readsAhead)
	go func() {
		defer close(out)
		r := bufio.NewReaderSize(input, 256<<10)
		var some []inputLine
		for n := 1; ; n++ {
			line, err := readLine(r)
			if err == nil || line.text != "" {
				line.number = n
				some = append(some, line)
			}
			if err != nil && !errors.Is(err, io.EOF) {
				some = append(some, inputLine{number: n, err: fmt.Errorf("read standard input: %w", err)})
			}
			if len(some) > 0 && (err != nil || len(some) == linesARead || r.Buffered() == 0) {
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

// readLine reads a line. One that is too long is left out.
func readLine(r *bufio.Reader) (line inputLine, err error) {
	text, err := r.ReadSlice('\n')
	long := len(text) > longestLine
	line.text = string(bytes.TrimRight(text, "\r\n"))
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	if long {
		line = inputLine{text: " ", err: errLongLine}
	}
	return line, err
}

var errLongLine = fmt.Errorf("the line is longer than %d bytes", longestLine)

// nextLines returns the lines that there are, or waits for some. Without any, the input has ended.
func nextLines(ctx context.Context, from <-chan []inputLine) (lines []inputLine, err error) {
	select {
	case lines = <-from:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for len(lines) > 0 && len(lines) < linesAtOnce {
		var more []inputLine
		select {
		case more = <-from:
		default:
			if len(lines) < manyLines {
				return lines, nil
			}
			select {
			case more = <-from:
			case <-time.After(moreTime):
			}
		}
		if len(more) == 0 {
			break
		}
		lines = append(lines, more...)
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
	input := readLines(ctx, a.stdin)
	for {
		lines, err := nextLines(ctx, input)
		if failed = err; err != nil || len(lines) == 0 {
			break
		}
		request := firewall.BanRequest{Force: force, Bans: make([]bans.Line, 0, len(lines))}
		numbers := make([]int, 0, len(lines))
		for _, line := range lines {
			l, ok, err := bans.ParseLine(line.text, defaults)
			if line.err != nil {
				err = line.err
			}
			if err != nil {
				told.add(line.number, err)
			} else if ok {
				request.Bans, numbers = append(request.Bans, l), append(numbers, line.number)
			}
		}
		if len(request.Bans) == 0 {
			continue
		}
		report, err := a.firewall.Ban(ctx, request)
		if report != nil {
			total.Banned, total.Kept, total.Cut = total.Banned+report.Banned, total.Kept+report.Kept, total.Cut+report.Cut
			total.Warnings = told.warn(total.Warnings, report.Warnings)
			for _, r := range report.Refused {
				told.add(numbers[r.Place], fmt.Errorf("not banned: %w", r.Err))
			}
		}
		if errors.Is(err, loader.ErrNotRunning) || ctx.Err() != nil {
			failed = err
			break
		}
		if err != nil { // a pipe that stays open goes on with what comes next
			told.add(numbers[0], err)
		}
	}
	if failed != nil && total.Banned == 0 {
		return failed
	}
	err := a.print(banView{total, told.view()}, func() {
		a.printf("banned %s\n", count(total.Banned, "address or network", "addresses and networks"))
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
	input := readLines(ctx, a.stdin)
	for {
		lines, err := nextLines(ctx, input)
		if failed = err; err != nil || len(lines) == 0 {
			break
		}
		r := firewall.UnbanRequest{IsReason: isReason}
		first := lines[0].number
		for _, line := range lines {
			l, ok, err := bans.ParseLine(line.text, bans.Line{})
			if line.err != nil {
				err = line.err
			}
			if err != nil {
				told.add(line.number, err)
			} else if ok {
				r.Prefixes = append(r.Prefixes, l.Prefix)
			}
		}
		report, err := a.firewall.Unban(ctx, r)
		if report != nil {
			total.Unbanned += report.Unbanned
			total.Warnings = told.warn(total.Warnings, report.Warnings)
			if len(missing) < mostProblems {
				missing = append(missing, report.NotBanned...)
			} else {
				unnamed += len(report.NotBanned)
			}
		}
		if errors.Is(err, loader.ErrNotRunning) || ctx.Err() != nil {
			failed = err
			break
		}
		if err != nil {
			told.add(first, err)
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
