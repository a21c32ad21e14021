// Package table lays out what ravenctl prints for people: aligned columns that fit a terminal.
package table

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Width is the most columns that a line takes.
const Width = 100

// gap is the number of blanks between columns.
const gap = 2

// narrowest is the least that the last column is squeezed to; then the others are cut.
const narrowest = 20

// Table has a heading and rows of as many cells. The zero value is an empty table without a heading.
type Table struct {
	Heading []string
	rows    [][]string
}

// Add appends a row; an empty cell shows as "-".
func (t *Table) Add(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = c
		if c == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// Rows is the number of rows.
func (t *Table) Rows() int { return len(t.rows) }

// Write lays the table out. The last column is wrapped at words where the line would be longer than Width.
func (t *Table) Write(w io.Writer) error {
	all := t.rows
	if len(t.Heading) > 0 {
		all = append([][]string{t.Heading}, t.rows...)
	}
	if len(all) == 0 {
		return nil
	}
	widths := make([]int, len(all[0]))
	for _, row := range all {
		for i := range min(len(row), len(widths)) {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	before := squeeze(widths)
	room := max(1, Width-before)
	var b strings.Builder
	for _, row := range all {
		for i, cell := range row {
			if i < len(row)-1 {
				b.WriteString(pad(cut(cell, widths[i]), widths[i]+gap))
				continue
			}
			for j, line := range Wrap(cell, room) {
				if j > 0 {
					b.WriteString("\n" + strings.Repeat(" ", before))
				}
				b.WriteString(line)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// squeeze narrows the widest columns but the last until that has room, and returns what all but the last take.
func squeeze(widths []int) int {
	firsts := widths[:len(widths)-1]
	before := 0
	for _, n := range firsts {
		before += n + gap
	}
	need := min(narrowest, widths[len(widths)-1])
	for before > Width-need && len(firsts) > 0 {
		widest := 0
		for i := range firsts {
			if firsts[i] > firsts[widest] {
				widest = i
			}
		}
		if firsts[widest] <= 1 {
			break
		}
		firsts[widest]--
		before--
	}
	return before
}

// cut shortens a cell that is too wide.
func cut(s string, to int) string {
	runes := []rune(s)
	if len(runes) <= to {
		return s
	}
	return string(runes[:to-1]) + "…"
}

func pad(s string, to int) string {
	return s + strings.Repeat(" ", max(0, to-utf8.RuneCountInString(s)))
}

// Wrap breaks text at blanks into lines of at most width, and a longer word where it must.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines = append(lines, line)
				line = ""
			}
			runes := []rune(word)
			lines = append(lines, string(runes[:width]))
			word = string(runes[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
