// Topics: partitions and their ends, who writes and reads them, and how they differ from their declaration.
import { useGet } from "../lib/api.js"
import { counted, duration, number } from "../lib/format.js"
import { html } from "../lib/html.js"
import { linkTo } from "../lib/router.js"
import { Command, Empty, Loaded, Table, Tag } from "../parts/common.js"

const total = ({ partitions }) => partitions.reduce((sum, { end, start }) => sum + end - start, 0)

const columns = [
  { name: "name", label: "topic", cell: ({ name }) => html`<a href=${linkTo(["topics", name])}>${name}</a>` },
  { name: "partitions", numeric: true, cell: ({ partitions }) => number(partitions.length) },
  { name: "records", numeric: true, cell: (topic) => number(total(topic)) },
  {
    name: "written_by",
    label: "written by",
    cell: ({ written_by: by }) => (by.length === 0 ? html`<span class="quiet">clients</span>` : by.join(", "))
  },
  {
    name: "read_by",
    label: "read by",
    cell: ({ read_by: by }) => (by.length === 0 ? html`<span class="quiet">nobody</span>` : by.join(", "))
  },
  {
    name: "differs",
    label: "declaration",
    cell: ({ action, differs }) =>
      differs ? html`<${Tag} kind="warn">differs: ${action}<//>` : html`<${Tag} kind="good">as declared<//>`
  }
]

const One = ({ topic }) => {
  const consumers = useGet("/v1/operations/consumers", { every: 3_000 })
  const { compacted, partitions, retention_ms: retention } = topic.declared ?? {}
  return html`<section class="card">
      <dl class="pairs">
        <dt>Kind</dt>
        <dd>${compacted ? "compacted: the newest value of each key" : "a log: every record"}</dd>
        <dt>Declared</dt>
        <dd>
          ${partitions === undefined ? "not declared here" : counted(partitions, "partition")}${retention ? `, records are kept for ${duration(retention)}` : ""}
        </dd>
        <dt>Written by</dt>
        <dd>${topic.written_by.join(", ") || "clients"}</dd>
        <dt>Read by</dt>
        <dd>${topic.read_by.join(", ") || "nobody"}</dd>
      </dl>
      ${topic.notes.map((note) => html`<div class="note-box">${typeof note === "string" ? note : JSON.stringify(note)}</div>`)}
      ${topic.differs && html`<${Command} text="npx millrace topics plan" />`}
      <p class="row">
        <a href=${linkTo("events", { topic: topic.name })}>Its records</a
        ><a href=${linkTo("live", { topic: topic.name })}>As they come</a>
      </p>
    </section>
    <section class="card">
      <h2>Partitions</h2>
      <${Loaded} of=${consumers}>
        ${({ projections }) => {
          const readers = projections.filter((one) =>
            one.partitions.some((partition) => partition.topic === topic.name)
          )
          return html`<${Table}
            caption=${`Partitions of ${topic.name}`}
            rows=${topic.partitions}
            keyOf=${({ partition }) => partition}
            columns=${[
              { name: "partition", numeric: true },
              { name: "start", numeric: true, cell: ({ start }) => number(start) },
              { name: "end", numeric: true, cell: ({ end }) => number(end) },
              ...readers.map(({ build, partitions: own, projection }) => ({
                name: `${projection} ${build}`,
                label: `${projection}, build ${build}`,
                numeric: true,
                cell: ({ partition }) => {
                  const at = own.find((one) => one.topic === topic.name && one.partition === partition)
                  if (at === undefined) return "–"
                  if (at.halted !== null) return html`<${Tag} kind="bad">halted<//>`
                  return at.lag === 0 ? "at the end" : `${number(at.lag)} to go`
                }
              }))
            ]}
          />`
        }}
      <//>
    </section>
    <${Command} text=${`npx millrace tail ${topic.name}`} />`
}

export default ({ path: [name] }) => {
  const list = useGet("/v1/operations/topics", { every: 3_000 })
  return html`<header class="head">
      <h1>${name === undefined ? "Topics" : html`<a href=${linkTo("topics")}>Topics</a> / ${name}`}</h1>
    </header>
    <${Loaded} of=${list}>
      ${({ log, topics }) => {
        const topic = topics.find((one) => one.name === name)
        if (topic !== undefined) return html`<${One} key=${name} topic=${topic} />`
        if (name !== undefined)
          return html`<${Empty} title=${`There is no topic ${name}`}><a href=${linkTo("topics")}>All topics</a><//>`
        return html`<p class="lead">The log is on ${log}.</p>
          <section class="card">
            <${Table} caption="Topics" rows=${topics} columns=${columns} keyOf=${(one) => one.name} />
          </section>
          <${Command} text="npx millrace topics list" />`
      }}
    <//>`
}
