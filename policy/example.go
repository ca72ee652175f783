// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// sampleLine is an entry of a list in the example file, commented out if it
// starts with #.
type sampleLine struct{ text, comment string }

const exampleHeader = `# SPDX-License-Identifier: Apache-2.0
#
# An example of /etc/portcullis/portcullis.yaml: the policy of a web server. Every key may be left out; what is not
# said otherwise is the default. "portcullis up" puts the file in force, "portcullis open" and "close" edit it.

`

// Example returns the example of a policy file that is installed beside the
// program. It has every key, those of sections commented out.
func Example() []byte {
	completeKeys()
	var b strings.Builder
	b.WriteString(exampleHeader)
	for _, k := range keys {
		switch kind := k.kind.(type) {
		case singular:
			exampleLine(&b, k.Name+": "+k.Default, k.meaning())
		case lists:
			exampleLine(&b, "# "+k.Name+":", k.Meaning)
			exampleLine(&b, "#   "+listExample, "")
		case section:
			exampleLine(&b, "# "+k.Name+":", k.Meaning)
			// One of many is enough to show how it is written.
			name, _, _ := strings.Cut(kind.example, ":")
			inner := lookUp(kind.keys, name)
			exampleLine(&b, "#   "+inner.Name+": "+inner.Default, inner.meaning())
		default:
			if len(k.sample) == 1 {
				exampleLine(&b, k.Name+": "+k.sample[0].text, k.Meaning+k.sample[0].comment)
				continue
			}
			exampleLine(&b, k.Name+":", "")
			for _, s := range k.sample {
				indent := "  "
				if strings.HasPrefix(s.text, "#") {
					indent = ""
				}
				exampleLine(&b, indent+s.text, s.comment)
			}
		}
	}
	return []byte(b.String())
}

// meaning returns what the key means, and what else than the default may stand
// there.
func (k *key) meaning() string {
	others, ok := strings.CutPrefix(k.Values, k.Default+", ")
	if v, word := k.kind.(singular); word && v.choices() != nil {
		others, ok = strings.Join(slices.DeleteFunc(slices.Clone(v.choices()), func(w string) bool { return w == k.Default }), ", "), true
	}
	if ok {
		return k.Meaning + ". Or: " + others
	}
	return k.Meaning
}

func exampleLine(b *strings.Builder, text, comment string) {
	if comment == "" {
		fmt.Fprintf(b, "%s\n", text)
		return
	}
	fmt.Fprintf(b, "%-24s # %s\n", text, comment)
}
