// SPDX-License-Identifier: Apache-2.0

package shell

// Place is where a command stands in a script.
type Place struct {
	Line int
	Text string // of the command, on one line
}

// Word is one argument of a command.
type Word struct {
	Text  string // as it is written, if it is not known
	Known bool
	many  bool // if it is not known: it may be none, or several
}

// Status is how a command has ended, as far as that is known.
type Status int

const (
	OK      Status = 0
	Unknown Status = -1
	Failed  Status = -2 // with any number but 0
	// Assumed is success that a script relies on under set -e, but that it may
	// also ask for.
	Assumed Status = -3
)

func (s Status) fails() bool   { return s == Failed || s > 0 }
func (s Status) unknown() bool { return s == Unknown || s == Assumed }

// Text is what a command reads or prints, as far as it is known.
type Text struct {
	Text  string
	Known bool
}

// Program is one call of a program, with its name but not its directory.
type Program struct {
	Name  string
	Args  []Word
	Input Text
	At    Place
	// InputLine is the line of the script at which the input stands, or 0.
	InputLine int
}

// World is what programs act on.
type World interface {
	// Clone returns a copy, on which programs act separately.
	Clone() World
	// Join takes what differs from another world for doubtful. It returns a
	// reason to tell of that, or an empty one if nothing does.
	Join(other World) (differs bool)
	// Doubt says that anything may have been done.
	Doubt(at Place)
	// Run does what a program does, if it is one of those that act on the world.
	Run(p Program) (s Status, ok bool)
	// Changes is another number whenever something was done.
	Changes() int
	// Open reports whether nothing is held back at all.
	Open() bool
}

// Listener is told what the script does beyond the world.
type Listener interface {
	Lost(at Place, why string)
	Note(at Place, why string)
}
