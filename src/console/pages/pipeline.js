// The pipeline as a graph: topics, projections, what they write and what carries it on, with rates and what waits; and the same as a list.
import { together, useGet } from "../lib/api.js"
import { counted, visible } from "../lib/format.js"
import { placed, related } from "../lib/graph.js"
import { html, useMemo, useState } from "../lib/html.js"
import { countersOf, partsOf } from "../lib/pipeline.js"
import { useRates } from "../lib/rates.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Loaded, Table, Tag } from "../parts/common.js"
import { Findings } from "../parts/findings.js"

/** How large boxes are, and how far apart: with more columns narrower and of three lines, so that seven fit into a window of 1280 pixels. */
const sizeOf = (columns) => {
  if (columns <= 4) return { width: 164, height: 46, gap: 16, between: 112, pad: 12, lines: 2 }
  const [width, between] = columns === 5 ? [136, 70] : columns === 6 ? [114, 58] : [104, 42]
  return { width, height: 61, gap: 14, between, pad: 7, lines: 3 }
}
/** About how wide a character is: of a name, of what is below it, and of a line's text. */
const characters = { name: 6.8, note: 7, line: 5.7 }
const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)
/** A text over some lines, broken behind its words and the parts of its name; what does not fit is cut off. */
const wrapped = (text, most, lines) => {
  const found = [""]
  for (const part of text.match(/[^\s._/-]*(?:[\s._/-]+|$)/g)) {
    const line = found.at(-1) + part
    if (found.at(-1) !== "" && line.trimEnd().length > most && found.length < lines) found.push(part)
    else found[found.length - 1] = line
  }
  return found.map((one) => clipped(one.trimEnd(), most))
}
const isCut = (lines) => lines.some((one) => one.endsWith("…"))
const at = ({ column, row }, { between, gap, height, width }) => ({
  x: column * (width + between) + 1,
  y: row * (height + gap) + 1
})

/** The line of an edge. One that closes a circle goes back below the boxes. */
const pathOf = (from, to, isBack, box) => {
  const [a, b] = [at(from, box), at(to, box)]
  const [x1, y1, x2, y2] = [a.x + box.width, a.y + box.height / 2, b.x, b.y + box.height / 2]
  if (!isBack && x2 > x1) {
    const bend = Math.min(90, (x2 - x1) / 2)
    return `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`
  }
  const low = Math.max(a.y, b.y) + box.height + box.gap / 2
  return `M${x1} ${y1} C${x1 + 40} ${y1} ${x1 + 40} ${low} ${x1 - 20} ${low} L${x2 + 20} ${low} C${x2 - 40} ${low} ${x2 - 40} ${y2} ${x2} ${y2}`
}

/** The lines of text at a line: its rate, and what waits. */
const labelLines = ({ label, waits }, { between, lines }) => {
  const most = Math.floor(between / characters.line)
  const below = !waits ? [] : lines === 2 ? [clipped(waits, most)] : wrapped(waits, most, 3)
  return { above: label, below }
}
/** How high a line of a label is. */
const lineHeight = 14
/**
 * Where the label of each line stands: on the line itself, in the gap between the columns at the end where fewer lines meet, and not on another label.
 */
const labelPlaces = (edges, nodes, box) => {
  const count = (end, id) => edges.filter((edge) => edge[end] === id).length
  const taken = []
  return edges.map((edge) => {
    const { from, isBack, label, to, waits } = edge
    if (!label && !waits) return undefined
    const { above, below } = labelLines(edge, box)
    const height = lineHeight * (1 + Math.max(1, below.length))
    const [a, b] = [at(nodes.get(from), box), at(nodes.get(to), box)]
    const [x1, y1, x2, y2] = [a.x + box.width, a.y + box.height / 2, b.x, b.y + box.height / 2]
    const isNearStart = isBack || x2 <= x1 || count("to", to) >= count("from", from)
    const x = isNearStart ? x1 + box.between / 2 : x2 - box.between / 2
    let y = y1
    if (!isBack && x2 - x1 <= box.between) y = (y1 + y2) / 2
    else if (!isNearStart) y = y2
    const isTaken = (one) => Math.abs(one.x - x) < box.between && y < one.y + one.height && one.y < y + height
    while (taken.some(isTaken)) y += 4
    taken.push({ x, y, height })
    return { x, y, above, below }
  })
}
const Line = ({ box, edge: { from, isBack, kind, state, to }, isActive, nodes }) => {
  const [a, b] = [nodes.get(from), nodes.get(to)]
  return html`<g class=${`edge ${kind.replaceAll(" ", "-")} ${state ?? ""} ${isActive ? "active" : ""}`}>
    <path d=${pathOf(a, b, isBack, box)} marker-end="url(#arrow)" />
  </g>`
}
/** What is at a line: its rate above it, and what waits below it. */
const LineLabel = ({ place: { above, below, x, y } }) =>
  html`<g class="edge">
    ${above && html`<text class="quiet" x=${x} y=${y - 4} text-anchor="middle">${above}</text>`}
    ${below.map((text, i) => html`<text key=${i} class="quiet" x=${x} y=${y + 13 + i * lineHeight} text-anchor="middle">${text}</text>`)}
  </g>`
const Box = ({ box, node, onActive }) => {
  const { href, id, isFollower, kind, label, note, reason, state } = node
  const { x, y } = at(node, box)
  const most = (kind) => Math.floor((box.width - 2 * box.pad) / characters[kind])
  const names = wrapped(label, most("name"), box.lines - 1)
  const notes = wrapped(note, most("note"), box.lines - names.length)
  const [name, more] = [isCut(names) ? names.join(" ") : label, isCut(notes) ? notes.join(" ") : note]
  const leading = box.lines === 2 ? 17 : 15
  const set = () => onActive(id)
  const unset = () => onActive(undefined)
  // what is seen, then what is cut off or not seen
  const rest = [
    name === label ? "" : label,
    more === note ? "" : note,
    note === kind ? "" : kind,
    reason && visible(reason)
  ]
  return html`<a
    class=${`box ${state} ${isFollower ? "follower" : ""} ${kind.replaceAll(/[ ,]+/g, "-")}`}
    href=${href}
    aria-label=${[`${name} ${more}`, ...rest.filter(Boolean)].join(", ")}
    onFocus=${set}
    onBlur=${unset}
    onMouseEnter=${set}
    onMouseLeave=${unset}
  >
    <rect x=${x} y=${y} width=${box.width} height=${box.height} rx="6" />
    ${[...names, ...notes].map(
      (text, i) =>
        html`<text key=${i} class=${i < names.length ? "" : "quiet"} x=${x + box.pad} y=${y + 19 + i * leading}>
            ${text}</text
          >${" "}`
    )}
  </a>`
}
/** The whole text of the part below the pointer, or that has the focus. */
const About = ({ node }) =>
  html`<p class="quiet" aria-hidden="true">
    ${
      node === undefined
        ? "Point to a part to see its name and what is at it."
        : `${node.label}, ${node.kind}${node.note === node.kind ? "" : `: ${node.note}`}${node.reason ? `; ${node.reason}` : ""}`
    }
  </p>`
const Graph = ({ edges, nodes }) => {
  const [active, setActive] = useState()
  // the places change with the parts, not with their numbers
  const shape = JSON.stringify([nodes.map(({ id }) => id), edges.map(({ from, kind, to }) => [from, to, kind])])
  const layout = useMemo(() => placed(nodes, edges), [shape])
  const state = new Map(nodes.map((one) => [one.id, one]))
  const shown = layout.nodes.map((one) => Object.assign({}, one, state.get(one.id)))
  const byId = new Map(shown.map((one) => [one.id, one]))
  const numbers = new Map(edges.map((edge) => [`${edge.from}\n${edge.to}\n${edge.kind}`, edge]))
  const lines = layout.edges.map((edge) =>
    Object.assign({}, edge, numbers.get(`${edge.from}\n${edge.to}\n${edge.kind}`))
  )
  const box = sizeOf(layout.columns)
  const places = labelPlaces(lines, byId, box)
  // a line that closes a circle bends around the boxes at both ends, which may be at an edge of the picture
  const back = lines.filter(({ isBack }) => isBack)
  const left = back.some(({ to }) => byId.get(to).column === 0) ? 44 : 0
  const right = back.some(({ from }) => byId.get(from).column === layout.columns - 1) ? 34 : 0
  const width = layout.columns * (box.width + box.between) - box.between + 2 + left + right
  const height = Math.max(...shown.map(({ row }) => row + 1)) * (box.height + box.gap) + 8
  return html`<div class="graph" tabindex="0" role="group" aria-label="Pipeline as a graph; the list has the same">
      <svg
        style=${{ minWidth: `${Math.round(width * 0.82)}px` }}
        class=${box.lines === 3 ? "dense" : ""}
        width=${width}
        height=${height}
        viewBox=${`${-left} 0 ${width} ${height}`}
      >
        <defs>
          <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0 L8 4 L0 8 z" />
          </marker>
        </defs>
        ${lines.map(
          (edge) =>
            html`<${Line}
              key=${`${edge.from} ${edge.to} ${edge.kind}`}
              box=${box}
              edge=${edge}
              nodes=${byId}
              isActive=${active === edge.from || active === edge.to}
            />`
        )}
        ${lines.map((edge, i) => places[i] && html`<${LineLabel} key=${`${edge.from} ${edge.to} ${edge.kind}`} place=${places[i]} />`)}
        ${shown.map((node) => html`<${Box} key=${node.id} box=${box} node=${node} onActive=${setActive} />`)}
      </svg>
    </div>
    <${About} node=${byId.get(active)} />`
}

const List = ({ edges, nodes }) => {
  const label = new Map(nodes.map((node) => [node.id, node]))
  const links = (some, end) =>
    some.map(
      (edge, i) =>
        html`<li key=${i}>
          ${edge.kind}
          <a href=${label.get(edge[end]).href}>${label.get(edge[end]).label}</a
          >${(edge.label || edge.waits) && html` <span class="quiet">${[edge.label, edge.waits].filter(Boolean).join(", ")}</span>`}
        </li>`
    )
  const known = edges.filter(({ from, to }) => label.has(from) && label.has(to))
  return html`<${Table}
    caption="The parts of the pipeline"
    rows=${nodes}
    keyOf=${({ id }) => id}
    columns=${[
      { name: "part", cell: ({ href, label: text }) => html`<a href=${href}>${text}</a>` },
      { name: "kind" },
      {
        name: "state",
        cell: ({ note, reason, state }) =>
          html`<${Tag} kind=${state || "quiet"}>${note}<//>${reason && html` <span>${reason}</span>`}`
      },
      {
        name: "from",
        label: "gets from",
        cell: ({ id }) =>
          html`<ul class="bare">
            ${links(
              known.filter(({ to }) => to === id).map((edge) => Object.assign({}, edge, { kind: "" })),
              "from"
            )}
          </ul>`
      },
      {
        name: "to",
        label: "goes to",
        cell: ({ id }) =>
          html`<ul class="bare">
            ${links(
              known.filter(({ from }) => from === id),
              "to"
            )}
          </ul>`
      }
    ]}
  />`
}

/** The parts that fit the filter, with all that leads to them and that they lead to. */
const filtered = ({ edges, nodes }, { only, text = "" }) => {
  const wanted = nodes.filter(
    ({ kind, label, state }) =>
      `${kind} ${label}`.toLowerCase().includes(text.toLowerCase()) && (only !== "wrong" || state !== "")
  )
  if (text === "" && only !== "wrong") return { nodes, edges }
  const kept = wanted.reduce((all, { id }) => all.union(related(edges, id)), new Set())
  return {
    nodes: nodes.filter(({ id }) => kept.has(id)),
    edges: edges.filter(({ from, to }) => kept.has(from) && kept.has(to))
  }
}

const Filters = ({ all, as, only, set, shown, text }) =>
  html`<div class="row end">
    <${Field} label="Show what has to do with"
      ><input
        type="search"
        value=${text ?? ""}
        placeholder="a name"
        onInput=${(event) => set({ text: event.target.value })}
    /><//>
    <${Field} label="Which parts"
      ><select value=${only ?? ""} onChange=${(event) => set({ only: event.target.value })}>
        <option value="">all</option>
        <option value="wrong">halted, paused or failing</option>
      </select><//
    >
    <div class="row" role="group" aria-label="As">
      ${["graph", "list"].map((one) => html`<button key=${one} type="button" aria-pressed=${as === one} onClick=${() => set({ as: one })}>${one === "graph" ? "Graph" : "List"}</button>`)}
    </div>
    <span class="quiet" role="status"
      >${shown === all ? counted(all, "part") : `${shown} of ${counted(all, "part")}`}</span
    >
  </div>`

const Pipeline = ({ application, query, status, topics, windows }) => {
  const reading = useMemo(
    () => ({ at: Date.now() - (status.read_ms_ago ?? 0), counters: countersOf(status, topics) }),
    [status]
  )
  const rates = useRates([reading]).last
  const whole = partsOf({ application, status, topics, rates, windows })
  const { only, text } = query
  const as = query.as ?? (matchMedia("(max-width: 720px)").matches ? "list" : "graph")
  const parts = filtered(whole, { only, text })
  const set = (changes) => go(linkTo("pipeline", { ...query, ...changes }), { replace: true })
  const held = whole.nodes.filter(({ command, reason }) => command !== undefined || reason !== undefined)
  const findings = [...status.problems, ...status.notices.filter(({ kind }) => kind === "paused")]
  if (whole.nodes.length === 0)
    return html`<${Empty} title="Nothing is declared"
      ><p>List projections and aggregates in <code>millrace.config.ts</code>.</p><//
    >`
  return html`<${Filters}
      all=${whole.nodes.length}
      shown=${parts.nodes.length}
      as=${as}
      only=${only}
      text=${text}
      set=${set}
    />
    ${
      parts.nodes.length === 0
        ? html`<${Empty}
            title=${only === "wrong" ? "Nothing is halted, paused or failing" : `No part has ${text} in its name`}
            ><a href=${linkTo("pipeline", { as })}>Show all</a><//
          >`
        : html`<section class="card">
            ${as === "list" ? html`<${List} ...${parts} />` : html`<${Graph} ...${parts} />`}
            ${
              as === "graph" &&
              html`<p class="legend quiet">
                ${[
                  ["reads", "records and messages"],
                  ["looks-up", "lookups"],
                  ["sends-commands-to", "commands"],
                  ["follows", "a build that follows"]
                ].map(([kind, text]) => html`<span key=${kind} class=${`key ${kind}`}></span><span>${text}</span>`)}
              </p>`
            }
          </section>`
    }
    ${
      findings.length > 0
        ? html`<section class="card">
            <h2>What is held</h2>
            <${Findings} findings=${findings} kind="problem" />
          </section>`
        : held.length > 0 &&
          html`<section class="card">
            <h2>What is held</h2>
            ${held.map(
              ({ command, id, label, note, reason }) =>
                html`<div key=${id}>
                  <p><strong>${label}</strong>: ${note}${reason && `: ${reason}`}</p>
                  ${command && html`<${Command} text=${command} />`}
                </div>`
            )}
          </section>`
    }`
}

export default ({ query }) => {
  const status = useGet("/v1/operations/status", { every: 2_000 })
  const application = useGet("/v1/operations/application")
  const topics = useGet("/v1/operations/topics", { every: 5_000 })
  const views = useGet("/v1/views")
  return html`<header class="head"><h1>Pipeline</h1></header>
    <p class="lead">
      From the left to the right: topics and aggregates, the projections that read them, what these write, and what
      carries it on. At a line is how much flows there, and what waits.
    </p>
    <${Loaded} of=${together([application, topics, views, status])}>
      ${([declared, { topics: all }, { views: shown }, found]) =>
        html`<${Pipeline}
          application=${declared}
          status=${found}
          topics=${all}
          windows=${new Set(shown.filter(({ window }) => window?.sizes.length > 0).map(({ name }) => name))}
          query=${query}
        />`}
    <//>
    <${Command} text="npx millrace status" />`
}
