// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

var _, _, _, _, _ pflag.Value = (*modeFlag)(nil), (*format)(nil), (*durationFlag)(nil), (*choiceFlag)(nil), (*choicesFlag)(nil)

// modeFlag is where an interface is filtered.
type modeFlag struct{ loader.Mode }

var modes = []string{string(loader.ModeAuto), string(loader.ModeNative), string(loader.ModeGeneric), string(loader.ModeTC)}

func (m *modeFlag) String() string { return string(m.Mode) }
func (m *modeFlag) Type() string   { return "MODE" }
func (m *modeFlag) Set(text string) (err error) {
	m.Mode, err = loader.ParseMode(text)
	return err
}

// addMode gives a command the flag --mode.
func addMode(cmd *cobra.Command, mode *modeFlag) {
	cmd.Flags().Var(mode, "mode", "where to filter: "+or(modes))
	_ = cmd.RegisterFlagCompletionFunc("mode", words(modes...))
}

// format is how a command prints its result: for people, or for programs.
type format string

const (
	asTable format = "table"
	asJSON  format = "json"
)

var formats = []string{string(asTable), string(asJSON)}

func (f *format) String() string {
	if *f == "" {
		return string(asTable)
	}
	return string(*f)
}

func (f *format) Type() string { return "FORMAT" }

func (f *format) Set(text string) error {
	return (&choiceFlag{(*string)(f), formats}).Set(text)
}

// durationFlag is a time as the policy file writes it: 30s, 2m, 1d12h.
type durationFlag struct{ time.Duration }

func (d *durationFlag) Type() string { return "TIME" }

func (d *durationFlag) String() string {
	if d.Duration == 0 {
		return ""
	}
	return schedule.Span(d.Duration)
}

func (d *durationFlag) Set(text string) (err error) {
	d.Duration, err = policy.ParseDuration(text)
	return err
}

// choiceFlag is one of a few words.
type choiceFlag struct {
	value   *string
	choices []string
}

func (c *choiceFlag) Type() string { return "WORD" }

func (c *choiceFlag) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c *choiceFlag) Set(text string) error {
	for _, choice := range c.choices {
		if text == choice {
			*c.value = text
			return nil
		}
	}
	return fmt.Errorf("write %s", or(c.choices))
}

// or joins choices as a sentence does: auto, live or pktgen.
func or(choices []string) string {
	last := len(choices) - 1
	if last < 1 {
		return strings.Join(choices, "")
	}
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

// choicesFlag is some of a few words, with commas in between; given again, it adds to them.
type choicesFlag struct {
	values  *[]string
	choices func() []string
}

func (c *choicesFlag) Type() string { return "WORDS" }

func (c *choicesFlag) String() string {
	if c.values == nil {
		return ""
	}
	return strings.Join(*c.values, ",")
}

func (c *choicesFlag) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		if err := (&choiceFlag{new(string), c.choices()}).Set(word); err != nil {
			return fmt.Errorf("%q: %w", word, err)
		}
		*c.values = append(*c.values, word)
	}
	return nil
}

// flagError returns the usage error for a flag that could not be read. Of numbers and the like the library says which
// function failed; this says what to write.
func flagError(cmd *cobra.Command, err error) error {
	if invalid := new(pflag.InvalidValueError); errors.As(err, &invalid) {
		why := errors.Unwrap(invalid)
		switch invalid.GetFlag().Value.Type() {
		case "int", "uint64":
			why = errors.New("write a whole number")
		case "bool":
			why = errors.New("write true or false, or the flag alone")
		case "duration":
			why = errors.New("write a time such as 500ms, 30s or 5m")
		case "stringSlice":
			why = errors.New("write names with commas in between")
		}
		err = fmt.Errorf("--%s %q: %w", invalid.GetFlag().Name, invalid.GetValue(), why)
	}
	return usagef("%w: see %q", err, cmd.CommandPath()+" --help")
}
