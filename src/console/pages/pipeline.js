// The pipeline as a graph: topics, projections, their tables and derived topics, and what carries these on, with what waits at each edge.
import { useGet } from "../lib/api.js"
import { counted, number } from "../lib/format.js"
import { html } from "../lib/html.js"
import { linkTo } from "../lib/router.js"
import { Command, Empty, Loaded } from "../parts/common.js"

const box = { width: 184, height: 46, gap: 14, between: 64 }

/** The nodes and edges of the graph. A node's column is one more than those of what it reads. */
const graphOf = (status, topics, views) => {
  const nodes = new Map()
  const edges = []
  const node = (id, label, href, more = {}) =>
    nodes.set(id, { id, label, href, column: 0, note: "", state: "", ...more })
  const known = topics.filter(({ name }) => !name.startsWith("millrace-") && !name.endsWith(".dlq"))
  for (const { name, partitions } of known)
    node(`topic ${name}`, name, linkTo(["topics", name]), {
      kind: "topic",
      note: `${number(partitions.reduce((sum, { end }) => sum + end, 0))} records`
    })
  const live = status.projections.filter(({ mode, removed }) => mode === "live" && !removed)
  for (const name of new Set(live.map((row) => row.name))) {
    const rows = live.filter((row) => row.name === name)
    const halted = rows.filter((row) => row.halted !== null).length
    node(`projection ${name}`, name, linkTo(["versions", name]), {
      kind: "projection",
      state: halted > 0 ? "bad" : rows.some((row) => row.waiting !== null) ? "warn" : "",
      note: halted > 0 ? `${counted(halted, "partition")} halted` : "projection"
    })
    for (const topic of new Set(rows.map((row) => row.topic))) {
      const lag = rows.filter((row) => row.topic === topic).reduce((sum, row) => sum + (row.lag ?? 0), 0)
      edges.push({
        from: `topic ${topic}`,
        to: `projection ${name}`,
        label: lag === 0 ? "" : number(lag),
        state: halted > 0 ? "bad" : ""
      })
    }
  }
  for (const { kind, name, written_by: by } of views) {
    if (by.length === 0) continue
    node(`table ${name}`, name, linkTo(["tables", name]), { kind: "table", note: kind })
    for (const one of by) edges.push({ from: `projection ${one}`, to: `table ${name}`, label: "", state: "" })
  }
  for (const { name, written_by: by } of known)
    for (const one of by.filter((writer) => nodes.has(`projection ${writer}`)))
      edges.push({ from: `projection ${one}`, to: `topic ${name}`, label: "", state: "" })
  for (const { halted, lag, target } of status.relays) {
    node(`relay ${target}`, `relay to ${target}`, linkTo("topics"), {
      kind: "relay",
      state: halted !== null ? "bad" : "",
      note: halted !== null ? "halted" : lag === 0 ? "nothing waits" : `${counted(lag, "message")} waiting`
    })
    for (const { to } of edges.filter((edge) => edge.to.startsWith("topic ")))
      edges.push({ from: to, to: `relay ${target}`, label: "", state: "" })
  }
  return placed(
    nodes,
    edges.filter(({ from, to }) => nodes.has(from) && nodes.has(to))
  )
}
/** Puts the nodes into columns. A circle of projections and topics does not push its nodes on for ever. */
const placed = (nodes, edges) => {
  for (let round = 0; round < nodes.size; round++) {
    let isMoved = false
    for (const { from, to } of edges) {
      const next = nodes.get(from).column + 1
      if (nodes.get(to).column >= next || next > nodes.size) continue
      nodes.get(to).column = next
      isMoved = true
    }
    if (!isMoved) break
  }
  const counts = []
  for (const one of nodes.values()) {
    const row = counts[one.column] ?? 0
    counts[one.column] = row + 1
    one.x = one.column * (box.width + box.between) + 1
    one.y = row * (box.height + box.gap) + 1
  }
  const width = counts.length * (box.width + box.between) - box.between + 2
  const height = Math.max(...counts.map((count) => count ?? 0)) * (box.height + box.gap) - box.gap + 2
  return {
    nodes: [...nodes.values()],
    edges: edges.map((edge) => ({ ...edge, from: nodes.get(edge.from), to: nodes.get(edge.to) })),
    width,
    height
  }
}
const clipped = (text) => (text.length > 24 ? `${text.slice(0, 23)}…` : text)

const Graph = ({ graph: { edges, height, nodes, width } }) =>
  html`<div class="graph" tabindex="0" role="region" aria-label="Pipeline">
    <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="list">
      ${edges.map(({ from, label, state, to }) => {
        const [x1, y1, x2, y2] = [from.x + box.width, from.y + box.height / 2, to.x, to.y + box.height / 2]
        const bend = Math.max(30, (x2 - x1) / 2)
        return html`<path class=${state} d=${`M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`} />
          ${label && html`<text class="quiet" x=${x2 - 8} y=${y2 - 6} text-anchor="end">${label} waiting</text>`}`
      })}
      ${nodes.map(
        ({ href, id, kind, label, note, state, x, y }) =>
          html`<g key=${id} role="listitem">
            <a class=${`box ${state}`} href=${href} aria-label=${`${kind} ${label}: ${note}`}>
              <rect x=${x} y=${y} width=${box.width} height=${box.height} rx="6" />
              <text x=${x + 12} y=${y + 19}>${clipped(label)}</text>
              <text class="quiet" x=${x + 12} y=${y + 36}>${note}</text>
            </a>
          </g>`
      )}
    </svg>
  </div>`

export default () => {
  const status = useGet("/v1/operations/status", { every: 3_000, accept: [503] })
  const topics = useGet("/v1/operations/topics", { every: 3_000 })
  const views = useGet("/v1/views")
  const isThere = status.data !== undefined && topics.data !== undefined && views.data !== undefined
  return html`<header class="head"><h1>Pipeline</h1></header>
    <p class="lead">
      From the left to the right: topics, the projections that read them, and the tables and topics that these write. A
      number at a line is what waits there.
    </p>
    <${Loaded}
      of=${isThere ? status : { ...status, data: undefined, error: status.error ?? topics.error ?? views.error }}
    >
      ${(found) => {
        const graph = graphOf(found, topics.data.topics, views.data.views)
        return graph.nodes.length === 0
          ? html`<${Empty} title="Nothing is declared" />`
          : html`<section class="card"><${Graph} graph=${graph} /></section>`
      }}
    <//>
    <${Command} text="npx millrace status" />`
}
