// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// The views, in the order of their keys.
const (
	viewReasons = iota
	viewRules
	viewInterfaces
	viewSources
	viewBlocked
	views
)

var viewNames = [views]string{"reasons", "rules", "interfaces", "dropped sources", "lists and bans"}

// What a view says that has no rows.
var emptyTexts = [views]string{"no packet has come in", "no rule is in force", "no interface is filtered",
	"nothing was dropped since this is shown", "no list is blocked, and no ban has a reason"}

// printedSources is how many sources --once prints; JSON has them all.
const printedSources = 20

// prompt is what is typed.
type prompt int

const (
	noPrompt prompt = iota
	typeFilter
	typeAddress
	confirmBan
)

// screen is the model of the terminal.
type screen struct {
	ctx      context.Context
	watch    *watch
	interval time.Duration
	rates    *rates
	err      error
	note     string

	width, height int
	view          int
	order         order
	filter        string
	selected      int
	prompt        prompt
	typed         string
	target        netip.Addr
}

func newScreen(w *watch, interval time.Duration) *screen {
	return &screen{ctx: context.Background(), watch: w, interval: interval, width: 80, height: 24, rates: &rates{}}
}

type (
	looked struct {
		rates *rates
		err   error
	}
	due    struct{}
	banned struct {
		note string
		err  error
	}
)

// Init implements [tea.Model].
func (m *screen) Init() tea.Cmd { return m.later() }

func (m *screen) later() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return due{} })
}

// Update implements [tea.Model].
func (m *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case due:
		withSources := m.view == viewSources
		return m, func() tea.Msg {
			r, err := m.watch.look(m.ctx, withSources)
			return looked{r, err}
		}
	case looked:
		if m.err = msg.err; msg.err == nil {
			m.rates = msg.rates
		}
		return m, m.later()
	case banned:
		m.note = msg.note
		if msg.err != nil {
			m.note = "not banned: " + msg.err.Error()
		}
	case tea.KeyPressMsg:
		if m.prompt != noPrompt {
			return m, m.typeKey(msg)
		}
		return m, m.press(msg.String())
	}
	return m, nil
}

// press does what a key asks for.
func (m *screen) press(key string) tea.Cmd {
	m.note = ""
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "tab", "right":
		m.view, m.selected = (m.view+1)%views, 0
	case "shift+tab", "left":
		m.view, m.selected = (m.view+views-1)%views, 0
	case "1", "2", "3", "4", "5":
		m.view, m.selected = int(key[0]-'1'), 0
	case "s":
		m.order = (m.order + 1) % orders
	case "up", "k":
		m.selected = max(m.selected-1, 0)
	case "down", "j":
		m.selected = min(m.selected+1, max(len(m.rows())-1, 0))
	case "/":
		m.prompt, m.typed = typeFilter, m.filter
	case "esc":
		m.filter = ""
	case "b":
		m.prompt, m.typed = typeAddress, ""
		if rows := m.rows(); m.selected < len(rows) && rows[m.selected].Source.IsValid() {
			m.ask(rows[m.selected].Source)
		}
	}
	return nil
}

func (m *screen) ask(addr netip.Addr) { m.prompt, m.target = confirmBan, addr }

// typeKey takes a key of what is typed.
func (m *screen) typeKey(msg tea.KeyPressMsg) tea.Cmd {
	switch key := msg.String(); {
	case key == "ctrl+c":
		return tea.Quit
	case key == "esc":
		m.prompt = noPrompt
	case m.prompt == confirmBan:
		m.prompt = noPrompt
		if key != "y" {
			return nil
		}
		target := m.target
		m.note = "banning " + target.String()
		return func() tea.Msg {
			note, err := m.watch.ban(m.ctx, target)
			return banned{note, err}
		}
	case key == "enter" && m.prompt == typeFilter:
		m.filter, m.prompt, m.selected = m.typed, noPrompt, 0
	case key == "enter":
		m.prompt = noPrompt
		addr, err := netip.ParseAddr(strings.TrimSpace(m.typed))
		if err != nil || addr.Zone() != "" {
			m.note = fmt.Sprintf("%q is no address", m.typed)
			return nil
		}
		m.ask(addr.Unmap())
	case key == "backspace":
		_, size := utf8.DecodeLastRuneInString(m.typed)
		m.typed = m.typed[:len(m.typed)-size]
	case msg.Text != "" && len(m.typed) < 64:
		m.typed += msg.Text
	}
	return nil
}

// rows returns those of the view that the filter leaves, in order.
func (m *screen) rows() []row {
	all := [views][]row{m.rates.Reasons, m.rates.Rules, m.rates.Interfaces, nil, m.rates.Blocked}[m.view]
	if m.view == viewSources {
		for _, s := range m.rates.Sources {
			all = append(all, row{Name: s.Address.String(), Packets: s.Estimated, PPS: s.PPS, Source: s.Address, Sampled: s.Sampled})
		}
	}
	rows := slices.DeleteFunc(slices.Clone(all), func(r row) bool {
		return !strings.Contains(strings.ToLower(r.Verdict+" "+r.Name), strings.ToLower(m.filter))
	})
	sortRows(rows, m.order)
	return rows
}

// View implements [tea.Model].
func (m *screen) View() tea.View {
	v := tea.NewView(m.render())
	v.AltScreen = true
	return v
}

func (m *screen) render() string {
	lines := []string{m.heading(), m.flowsLine(), ""}
	lines = append(lines, strings.Split(m.table(), "\n")...)
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(min(len(lines), m.height-1), 0)], m.footer())
	for i := range lines {
		lines[i] = cut(lines[i], m.width)
	}
	return strings.Join(lines, "\n")
}

func (m *screen) heading() string {
	passed, watched, dropped := 0.0, 0.0, 0.0
	for _, r := range m.rates.Reasons {
		switch r.Verdict {
		case maps.Drop:
			dropped += r.PPS
		case maps.WouldDrop:
			watched += r.PPS
			fallthrough
		default:
			passed += r.PPS
		}
	}
	text := fmt.Sprintf("portcullis  passed %s/s  dropped %s/s", short(passed), short(dropped))
	if watched > 0 {
		text += fmt.Sprintf("  (would drop %s/s)", short(watched))
	}
	if m.err != nil {
		text = "portcullis: " + quote.Text(m.err.Error())
	}
	return text
}

func (m *screen) flowsLine() string {
	states := make([]string, 0, len(m.rates.Flows))
	for state := range m.rates.Flows {
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b string) int {
		if d := m.rates.Flows[b] - m.rates.Flows[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	text := fmt.Sprintf("flows %d of %d", m.rates.Entries, m.rates.Max)
	for _, state := range states {
		text += fmt.Sprintf("  %s %d", state, m.rates.Flows[state])
	}
	return text
}

func (m *screen) footer() string {
	switch {
	case m.prompt == typeFilter:
		return "filter: " + m.typed + "_"
	case m.prompt == typeAddress:
		return "ban address: " + m.typed + "_"
	case m.prompt == confirmBan:
		return fmt.Sprintf("ban %s for an hour? y/n", m.target)
	case m.note != "":
		return quote.Text(m.note)
	}
	text := "q quit  tab view  s sort:" + m.order.String() + "  / filter"
	if m.filter != "" {
		text += ":" + quote.Text(m.filter)
	}
	return text + "  b ban"
}

// What the columns of numbers take.
const numbers = 3 * 9

// table is the view that is shown. A height of 0 is without end.
func (m *screen) table() string {
	wide := max(m.width-numbers-2, 12)
	rows := m.rows()
	var b strings.Builder
	second, third := "BIT/S", "PACKETS"
	if m.view == viewSources {
		second, third = "SAMPLED", "ABOUT"
	}
	fmt.Fprintf(&b, "  %s%9s%9s%9s", pad(strings.ToUpper(viewNames[m.view]), wide), "PKTS/S", second, third)
	room := len(rows)
	switch {
	case m.height > 0:
		room = max(m.height-5, 1)
	case m.view == viewSources:
		room = printedSources
	}
	if len(rows) == 0 {
		fmt.Fprintf(&b, "\n  %s", m.emptyText())
	}
	first := max(min(m.selected-room+1, len(rows)-room), 0)
	for i := first; i < min(len(rows), first+room); i++ {
		r, mark := rows[i], "  "
		if m.height > 0 && i == m.selected {
			mark = "> "
		}
		name := r.Name
		if r.Verdict != "" {
			name = r.Verdict + " " + name
		}
		middle := r.BPS * 8
		if m.view == viewSources {
			middle = float64(r.Sampled)
		}
		fmt.Fprintf(&b, "\n%s%s%9s%9s%9s", mark, pad(quote.Text(name), wide), short(r.PPS), short(middle), short(float64(r.Packets)))
	}
	return b.String()
}

// emptyText says why a view has no rows.
func (m *screen) emptyText() string {
	switch {
	case m.filter != "":
		return fmt.Sprintf("nothing contains %q: esc shows all", m.filter)
	case m.view == viewSources && m.rates.unsampled != nil:
		return quote.Text(m.rates.unsampled.Error())
	}
	return emptyTexts[m.view]
}

// pad makes a text so many characters long.
func pad(text string, width int) string {
	text = cut(text, width)
	return text + strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
}

func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(width-1, 0)]) + "…"
}

// short writes a number in seven characters at most.
func short(n float64) string {
	for _, unit := range []string{"", "k", "M", "G", "T"} {
		switch {
		case n < 10 && n != float64(int(n)):
			return fmt.Sprintf("%.1f%s", n, unit)
		case n < 10000:
			return fmt.Sprintf("%.0f%s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.0fP", n)
}
