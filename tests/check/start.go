// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// compilers are the packages whose calls compile a text, which takes longer than to open a port.
var compilers = []string{"regexp", "template"}

// Start returns one complaint for each package variable that is compiled from a text before main begins. The program
// starts anew for each command, most of which need none of them: sync.OnceValue compiles one when it is first used.
func Start(tree fs.FS, files []string) ([]string, error) {
	var complaints []string
	for _, name := range files {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "tests/") {
			continue
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return nil, err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, declaration := range file.Decls {
			if variables, ok := declaration.(*ast.GenDecl); !ok || variables.Tok != token.VAR {
				continue
			}
			invoked := make(map[ast.Node]bool) // functions that are called where they stand
			ast.Inspect(declaration, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					invoked[n.Fun] = true
					called, ok := n.Fun.(*ast.SelectorExpr)
					if !ok {
						return true
					}
					if of, ok := called.X.(*ast.Ident); ok && slices.Contains(compilers, of.Name) {
						complaints = append(complaints, fmt.Sprintf("%s: %s.%s runs at every start of the program: let sync.OnceValue call it",
							set.Position(n.Pos()), of.Name, called.Sel.Name))
					}
				case *ast.FuncLit:
					return invoked[n]
				}
				return true
			})
		}
	}
	return complaints, nil
}
