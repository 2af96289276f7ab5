// A chart of numbers over time, by uPlot, which the page loads when it has the first chart.
import { html, useEffect, useRef } from "../lib/html.js"
import { isUtc, number, time } from "../lib/format.js"

/**
 * Gives the browser a language that it knows until the returned function is called. uPlot makes a format of numbers of `navigator.language` when it is loaded,
 * which throws where the system's locale is no language, as `en-US@posix`.
 */
const withKnownLanguage = () => {
  try {
    Intl.NumberFormat(navigator.language)
    return () => undefined
  } catch {
    Object.defineProperty(navigator, "language", { value: "en-US", configurable: true })
    return () => delete navigator.language
  }
}
let loading
/** uPlot, loaded once. It is a classic script, since its smallest form is one. */
const library = () =>
  (loading ??= new Promise((resolve, reject) => {
    const style = document.createElement("link")
    style.rel = "stylesheet"
    style.href = "/console/vendor/uplot.css"
    const script = document.createElement("script")
    const restore = withKnownLanguage()
    script.src = "/console/vendor/uplot.js"
    script.addEventListener("load", () => (restore(), resolve(globalThis.uPlot)))
    script.addEventListener("error", () => (restore(), reject(new Error("the charts could not be loaded"))))
    // the page's own rules come behind and win
    document.head.prepend(style)
    document.head.append(script)
  }))

/** The labels of the ticks of times: the time of day, and the day where it is another one; in 24 hours, as all times of the console. */
const tickTexts = (ticks, step) => {
  let before
  return ticks.map((tick) => {
    const [day, clock] = time(tick * 1_000).split(" ")
    const isNewDay = day !== before
    before = day
    if (step >= 86_400) return day
    const text = step < 1 ? clock : step < 60 ? clock.slice(0, 8) : clock.slice(0, 5)
    return isNewDay ? `${text}\n${day}` : text
  })
}
/** The range of times: a minute at least, so that the first points are not a line across years. One alone is in the middle. */
const timeRange = ({ data: [times] }, low, high) => {
  const last = times.length > 1 ? high : (times[0] ?? Date.now() / 1_000)
  return times.length === 1 ? [last - 60, last + 60] : [Math.min(times.length > 1 ? low : last, last - 60), last]
}
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
/** The colours of series, by their number. */
const seriesColours = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5"]

/**
 * A line for each of `series` (`{ label, values }`, as many as `times`) over `times` (epoch milliseconds). `unit` is on the axis; `summary` is what a screen
 * reader gets instead of the lines. The legend has the values below the pointer, and the last ones otherwise.
 * `format` makes their texts; `hasPoints` shows each value by a point, for lines with gaps.
 */
export const Chart = ({ format = number, hasPoints = false, height = 180, series, summary, times, unit = "" }) => {
  const box = useRef()
  const plot = useRef()
  const shape = `${series.map(({ label }) => label).join("\n")}${unit}${isUtc()}`
  const data = () => [times.map((at) => at / 1_000), ...series.map(({ values }) => values)]
  useEffect(() => {
    let isGone = false
    const element = box.current
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }))
    const dark = matchMedia("(prefers-color-scheme: dark)")
    const make = async () => {
      const UPlot = await library().catch(() => undefined)
      if (isGone || UPlot === undefined) return
      plot.current?.destroy()
      const axis = {
        stroke: colour("--quiet"),
        grid: { stroke: colour("--line"), width: 1 },
        ticks: { stroke: colour("--line"), width: 1 }
      }
      plot.current = new UPlot(
        {
          width: element.clientWidth,
          height,
          tzDate: isUtc() ? (at) => UPlot.tzDate(new Date(at * 1_000), "Etc/UTC") : undefined,
          cursor: { points: { size: 6 } },
          legend: { live: true },
          // the last time of the axis is in the middle below its tick
          padding: [8, 40, 0, 0],
          scales: {
            x: { range: timeRange },
            y: { range: (_, low, high) => [Math.min(0, low ?? 0), high === null || high <= 0 ? 1 : high * 1.1] }
          },
          axes: [
            { ...axis, space: 80, values: (_, ticks, _axis, _space, step) => tickTexts(ticks, step) },
            { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => `${number(tick)}${unit && ` ${unit}`}`) }
          ],
          series: [
            { label: "time", value: (_, at) => (at === null || at === undefined ? "–" : time(at * 1_000)) },
            ...series.map(({ label }, i) => ({
              label,
              stroke: colour(seriesColours[i % seriesColours.length]),
              width: 1.5,
              points: hasPoints ? { show: true, size: 5 } : { size: 5 },
              value: (_, value) =>
                value === null || value === undefined ? "–" : `${format(value)}${unit && ` ${unit}`}`
            }))
          ]
        },
        data(),
        element
      )
    }
    make()
    resize.observe(element)
    dark.addEventListener("change", make)
    return () => {
      isGone = true
      resize.disconnect()
      dark.removeEventListener("change", make)
      plot.current?.destroy()
      plot.current = undefined
    }
  }, [shape, height])
  useEffect(() => plot.current?.setData(data()), [times, series])
  return html`<div class="chart" ref=${box} role="img" aria-label=${summary}></div>`
}
