package cost

import (
	"bytes"
	"image/color"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// curves is what the plots show besides the rows.
type curves struct {
	// Seconds of a rolling restart over the number of nodes: ours, ours with a higher rate of the control plane, theirs.
	oursBySize, raisedBySize, theirsBySize []point
	// estimate is ours for a size that was not measured.
	estimate func(float64) float64
	// rollouts is how many new pods were Ready over time, by how the control plane was set.
	rollouts map[string][]point
}

type point struct{ x, y float64 }

var (
	blue   = color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}
	orange = color.RGBA{R: 0xd9, G: 0x6c, B: 0x06, A: 0xff}
	grey   = color.RGBA{R: 0x77, G: 0x77, B: 0x77, A: 0xff}
	red    = color.RGBA{R: 0xc0, G: 0x28, B: 0x28, A: 0xff}
)

// plotFleet draws fleet.svg: how long a rolling restart takes on how many nodes.
func (b *bench) plotFleet(t *testing.T) {
	t.Helper()
	p := newPlot("A rolling restart of the whole fleet", "nodes", "seconds")
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = decades{}, decades{}
	p.Legend.Left, p.Legend.XOffs, p.Legend.YOffs = true, vg.Points(6), -vg.Points(4)
	line(t, p, "the copied DaemonSet, from a window of a few nodes", b.theirsBySize, red, nil, false)
	line(t, p, "ours, control plane at its defaults", b.oursBySize, blue, nil, true)
	if b.estimate != nil {
		var estimated []point
		for x := b.oursBySize[0].x; x <= farther*1.001; x *= math.Pow(10, 0.05) {
			estimated = append(estimated, point{x, b.estimate(x)})
		}
		line(t, p, "ours, estimated from what was measured", estimated, blue, []vg.Length{vg.Points(5), vg.Points(4)}, false)
	}
	if len(b.raisedBySize) > 0 {
		line(t, p, "ours, kube-controller-manager's rate raised", b.raisedBySize, orange, nil, true)
	}
	p.X.Min, p.X.Max = 80, farther*1.25
	p.Y.Min, p.Y.Max = 10, math.Pow(10, math.Ceil(math.Log10(p.Y.Max)+0.9)) // room for the legend
	save(t, p, 20, 13, filepath.Join(b.out, "fleet.svg"))
}

// plotRollouts draws rollout.svg: how many new pods are Ready at which moment of a rolling restart.
func (b *bench) plotRollouts(t *testing.T) {
	t.Helper()
	p := newPlot("New pods that are Ready, in a rolling restart", "seconds", "pods")
	p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = false, -vg.Points(8), vg.Points(10)
	colors := []color.Color{blue, orange, red}
	for i, name := range slices.Sorted(maps.Keys(b.rollouts)) {
		line(t, p, name, append([]point{{0, 0}}, b.rollouts[name]...), colors[i%len(colors)], nil, false)
	}
	p.X.Min, p.Y.Min = 0, 0
	save(t, p, 20, 11, filepath.Join(b.out, "rollout.svg"))
}

// plotRatios draws ratios.svg: a bar for each row with a counterpart, to the left of 1 where ours costs less, and its target.
func (b *bench) plotRatios(t *testing.T) {
	t.Helper()
	var rows []row
	for _, r := range b.rows {
		if ratio := r.ours / r.theirs; ratio > 0 && !math.IsInf(ratio, 1) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return
	}
	slices.Reverse(rows) // the first is to stand at the top
	p := newPlot("Ours : the copied DaemonSet (left of 1: ours costs less)", "ratio", "")
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
	p.Legend.Top, p.Legend.XOffs = false, -vg.Points(8)
	var names plot.ConstantTicks
	var targets []point
	values := plotter.XYLabels{}
	low, high := 0.5, 2.0
	for i, r := range rows {
		y, ratio := float64(i), r.ours/r.theirs
		names = append(names, plot.Tick{Value: y, Label: r.what})
		col := color.Color(blue)
		if !r.met() {
			col = red
		}
		bar := line(t, p, "", []point{{1, y}, {ratio, y}}, col, nil, false)
		bar.Width = vg.Points(9)
		low, high = min(low, ratio), max(high, ratio)
		end := max(ratio, 1)
		if !math.IsNaN(r.limit) && !r.absolute {
			targets = append(targets, point{r.limit, y})
			low, high, end = min(low, r.limit), max(high, r.limit), max(end, r.limit)
		}
		values.XYs = append(values.XYs, plotter.XY{X: end, Y: y})
		values.Labels = append(values.Labels, figure(ratio, ""))
	}
	labels, err := plotter.NewLabels(values)
	require.NoError(t, err)
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font = font.From(plot.DefaultFont, 9)
		labels.TextStyle[i].YAlign = text.YCenter
	}
	labels.Offset = vg.Point{X: vg.Points(8)}
	marks := scatter(t, p, targets, color.Black)
	marks.Shape, marks.Radius = stroke{}, vg.Points(8)
	p.Add(labels)
	if len(targets) > 0 {
		p.Legend.Add("target", marks)
	}
	p.Y.LineStyle.Width, p.Y.Tick.Length = 0, 0 // names, no scale
	p.Y.Tick.Marker, p.Y.Tick.Label.Font.Size = names, vg.Points(9)
	p.Y.Min, p.Y.Max = -1.6, float64(len(rows))-0.4
	p.X.Min, p.X.Max = low/1.5, high*3
	save(t, p, 24, vg.Length(len(rows))*0.75+4, filepath.Join(b.out, "ratios.svg"))
}

func newPlot(title, x, y string) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Title.TextStyle.Font.Size, p.Title.Padding = vg.Points(14), vg.Points(8)
	p.Legend.Top, p.Legend.Padding = true, vg.Points(3)
	p.Legend.TextStyle.Font.Size = vg.Points(10)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{Y: 0xe0}, color.Gray{Y: 0xe0}
	p.Add(grid)
	return p
}

// line adds one, with a mark at each point if asked for, and with an entry in the legend if it has a name.
func line(t *testing.T, p *plot.Plot, name string, points []point, col color.Color, dashes []vg.Length, marked bool) *plotter.Line {
	t.Helper()
	l, err := plotter.NewLine(xys(points))
	require.NoError(t, err)
	l.Color, l.Width, l.Dashes = col, vg.Points(1.8), dashes
	p.Add(l)
	thumbnails := []plot.Thumbnailer{l}
	if marked {
		marks := scatter(t, p, points, col)
		thumbnails = append(thumbnails, marks)
		if len(points) == 1 {
			thumbnails = thumbnails[1:]
		}
	}
	if name != "" {
		p.Legend.Add(name, thumbnails...)
	}
	return l
}

func scatter(t *testing.T, p *plot.Plot, points []point, col color.Color) *plotter.Scatter {
	t.Helper()
	s, err := plotter.NewScatter(xys(points))
	require.NoError(t, err)
	s.Color, s.Shape, s.Radius = col, draw.CircleGlyph{}, vg.Points(3.5)
	p.Add(s)
	return s
}

func xys(points []point) plotter.XYs {
	var all plotter.XYs
	for _, p := range points {
		all = append(all, plotter.XY{X: p.x, Y: p.y})
	}
	return all
}

// stroke is an upright line.
type stroke struct{}

func (stroke) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	c.StrokeLine2(draw.LineStyle{Color: style.Color, Width: vg.Points(2)}, at.X, at.Y-style.Radius, at.X, at.Y+style.Radius)
}

// decades labels the powers of ten between which there are ticks without labels.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for decade := math.Pow(10, math.Floor(math.Log10(low))); decade <= high; decade *= 10 {
		for digit := 1.0; digit < 10; digit++ {
			value, label := decade*digit, ""
			if digit == 1 {
				label = figure(decade, "")
				for i := len(label) - 3; i > 0 && decade >= 1000; i -= 3 {
					label = label[:i] + "," + label[i:]
				}
			}
			if value >= low && value <= high {
				ticks = append(ticks, plot.Tick{Value: value, Label: label})
			}
		}
	}
	return ticks
}

// save writes it, in centimetres.
func save(t *testing.T, p *plot.Plot, width, height vg.Length, path string) {
	t.Helper()
	var svg bytes.Buffer
	canvas, err := p.WriterTo(width*vg.Centimeter, height*vg.Centimeter, "svg")
	require.NoError(t, err)
	_, err = canvas.WriteTo(&svg)
	require.NoError(t, err)
	// Where there is no Liberation Sans these have the same widths, which the labels' places were computed from.
	content := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	require.NoError(t, os.WriteFile(path, content, 0o644))
}
