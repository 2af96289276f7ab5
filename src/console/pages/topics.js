// Topics: partitions and their ends, who writes and reads them, how far readers are, and how topics differ from their declaration.
import { useGet } from "../lib/api.js"
import { endOf, oldest, recordsOf, sum } from "../lib/counts.js"
import { counted, duration, number } from "../lib/format.js"
import { html, useMemo } from "../lib/html.js"
import { useRates } from "../lib/rates.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Loaded, Table, Tag } from "../parts/common.js"

/** What reads a topic: builds of projections, subscriptions and relays, each with what waits for it. */
const readersOf = (name, { projections, subscriptions }) => [
  ...projections.flatMap(({ build, partitions, projection }) => {
    const own = partitions.filter(({ topic }) => topic === name)
    if (own.length === 0) return []
    const halted = own.filter((one) => one.halted !== null)
    return [
      {
        id: `${projection} ${build}`,
        kind: "projection",
        label: `${projection}, build ${build}`,
        href: linkTo(["versions", projection]),
        partitions: own,
        lag: sum(own.map(({ lag }) => lag)),
        age: oldest(own.map(({ oldest_ms: ms }) => ms)),
        state: halted.length > 0 ? ["bad", `${counted(halted.length, "partition")} halted`] : ["good", "running"],
        reason: halted[0]?.halted
      }
    ]
  }),
  ...subscriptions
    .filter(({ topic }) => topic === name)
    .map(({ consumed, subscription, unacknowledged, undelivered }) => ({
      id: `subscription ${subscription}`,
      kind: "subscription",
      label: subscription,
      lag: undelivered,
      note: unacknowledged === 0 ? undefined : `${number(unacknowledged)} not acknowledged`,
      state: consumed ? ["good", "connected"] : [undelivered > 0 ? "warn" : "quiet", "no consumer"]
    }))
]
const Readers = ({ readers, topic }) =>
  readers.length === 0
    ? html`<${Empty} title="Nothing reads it"
        ><p>A projection reads it as its source or by a lookup, and other programs by a subscription:</p>
        <${Command} text=${`npx millrace subscribe ${topic.name} --name NAME`}
      /><//>`
    : html`<${Table}
        caption=${`What reads ${topic.name}`}
        rows=${readers}
        keyOf=${({ id }) => id}
        columns=${[
          {
            name: "reader",
            cell: ({ href, label }) => (href === undefined ? label : html`<a href=${href}>${label}</a>`)
          },
          { name: "kind" },
          { name: "lag", label: "waiting", numeric: true, cell: ({ lag }) => number(lag) },
          { name: "age", label: "the oldest for", numeric: true, cell: ({ age }) => duration(age) },
          {
            name: "state",
            cell: ({ note, reason, state: [kind, text] }) =>
              html`<${Tag} kind=${kind}>${text}<//
                >${reason && ` ${reason}`}${note && html` <span class="quiet">${note}</span>`}`
          }
        ]}
      />`

/** What the declaration and the log say of a topic, with what differs. Settings that do not differ are as they are declared. */
const settingsOf = ({ action, declared, partitions, settings }) => {
  const isMissing = action === "create"
  const given = [
    [
      "partitions",
      counted(declared.partitions, "partition"),
      counted(partitions.length, "partition"),
      partitions.length !== declared.partitions
    ],
    ["kind", declared.compacted ? "compacted: the newest value of each key" : "a log: every record"],
    ["retention", declared.retention_ms === null ? "records are kept" : `${duration(declared.retention_ms)}`]
  ]
  return [
    ...given.map(([name, text, log, differs = false]) => ({
      name,
      declared: text,
      log: isMissing ? "the topic does not exist" : (log ?? (settings.length === 0 ? text : "see the settings below")),
      differs: isMissing || differs
    })),
    ...settings.map(({ from, name, to }) => ({ name, declared: to, log: from ?? "not set", differs: true }))
  ]
}
const Configuration = ({ topic }) => {
  const { action, differs, notes } = topic
  return html`<section class="card">
    <div class="row spread">
      <h2>Configuration</h2>
      ${differs ? html`<${Tag} kind="warn">differs from its declaration<//>` : html`<${Tag} kind="good">as declared<//>`}
    </div>
    <${Table}
      caption=${`Configuration of ${topic.name}`}
      rows=${settingsOf(topic)}
      keyOf=${({ name }) => name}
      columns=${[
        { name: "name", label: "setting", cell: ({ name }) => html`<code>${name}</code>` },
        { name: "declared" },
        { name: "log", label: "in the log" },
        {
          name: "differs",
          label: "compared",
          cell: (row) =>
            row.differs ? html`<${Tag} kind="warn">differs<//>` : html`<span class="quiet">the same</span>`
        }
      ]}
    />
    ${notes.map((note) => html`<div class="note-box">${String(note)}</div>`)}
    ${
      differs &&
      html`<p>
          ${
            action === "refused"
              ? "This cannot be applied as it is; the note says why. What would be done:"
              : "See what would be done, and do it:"
          }
        </p>
        <${Command} text="npx millrace topics plan" />
        ${action !== "refused" && html`<${Command} text="npx millrace topics apply" />`}`
    }
  </section>`
}

const Partitions = ({ rates, readers, topic }) =>
  html`<${Table}
    caption=${`Partitions of ${topic.name}`}
    rows=${topic.partitions}
    keyOf=${({ partition }) => partition}
    columns=${[
      {
        name: "partition",
        numeric: true,
        cell: ({ partition }) => html`<a href=${linkTo("events", { topic: topic.name, partition })}>${partition}</a>`
      },
      { name: "start", label: "first position", numeric: true, cell: ({ start }) => number(start) },
      { name: "end", numeric: true, cell: ({ end }) => number(end) },
      { name: "records", label: "positions", numeric: true, cell: ({ end, start }) => number(end - start) },
      {
        name: "rate",
        label: "a second",
        numeric: true,
        cell: ({ partition }) => number(rates[`${topic.name} ${partition}`])
      },
      ...readers
        .filter(({ partitions }) => partitions !== undefined)
        .map(({ id, label, partitions }) => ({
          name: id,
          label,
          numeric: true,
          cell: ({ partition }) => {
            const at = partitions.find((one) => one.partition === partition)
            if (at === undefined) return "–"
            if (at.halted !== null) return html`<${Tag} kind="bad">halted<//>`
            return at.lag === 0 ? "at the end" : `${number(at.lag)} to go`
          }
        }))
    ]}
  />`

const One = ({ kind, rates, topic }) => {
  const consumers = useGet("/v1/operations/consumers", { every: 3_000 })
  const { name, read_by: readBy, written_by: writtenBy } = topic
  return html`<section class="card">
      <dl class="pairs">
        <dt>Kind</dt>
        <dd>${kind ?? "–"}</dd>
        <dt>Written by</dt>
        <dd>${writtenBy.join(", ") || "clients"}</dd>
        <dt>Read by</dt>
        <dd>${readBy.join(", ") || "no projection"}</dd>
      </dl>
      <p class="row">
        <a href=${linkTo("events", { topic: name })}>Its records</a
        ><a href=${linkTo("live", { topic: name })}>As they come</a
        ><a href=${linkTo("pipeline", { text: name })}>In the pipeline</a>
      </p>
    </section>
    <${Loaded} of=${consumers}>
      ${(found) => {
        const readers = readersOf(name, found)
        return html`<section class="card">
            <h2>Consumers</h2>
            <${Readers} readers=${readers} topic=${topic} />
          </section>
          <section class="card">
            <h2>Partitions</h2>
            <${Partitions} readers=${readers} topic=${topic} rates=${rates} />
          </section>`
      }}
    <//>
    <${Configuration} topic=${topic} />
    <${Command} text=${`npx millrace tail ${name}`} />`
}

const columnsOf = (kinds, rates) => [
  { name: "name", label: "topic", cell: ({ name }) => html`<a href=${linkTo(["topics", name])}>${name}</a>` },
  { name: "kind", cell: ({ name }) => kinds.get(name) ?? html`<span class="quiet">–</span>` },
  { name: "partitions", numeric: true, cell: ({ partitions }) => number(partitions.length) },
  { name: "records", label: "positions", numeric: true, cell: (topic) => number(recordsOf(topic)) },
  { name: "rate", label: "a second", numeric: true, cell: ({ name }) => number(rates[name]) },
  {
    name: "written_by",
    label: "written by",
    cell: ({ written_by: by }) => (by.length === 0 ? html`<span class="quiet">clients</span>` : by.join(", "))
  },
  {
    name: "read_by",
    label: "read by",
    cell: ({ read_by: by }) => (by.length === 0 ? html`<span class="quiet">no projection</span>` : by.join(", "))
  },
  {
    name: "differs",
    label: "declaration",
    cell: ({ action, differs }) =>
      differs ? html`<${Tag} kind="warn">differs: ${action}<//>` : html`<${Tag} kind="good">as declared<//>`
  }
]

const All = ({ kinds, log, query: { text = "" }, rates, topics }) => {
  const shown = topics.filter(({ name }) => name.toLowerCase().includes(text.toLowerCase()))
  const differing = topics.filter(({ differs }) => differs)
  return html`<p class="lead">
      The log is on ${log}. Positions count also what only announces a time to other projections.
    </p>
    ${
      differing.length > 0 &&
      html`<div class="note-box">
        <p>
          ${counted(differing.length, "topic")} ${differing.length === 1 ? "differs" : "differ"} from the
          declaration:${" "}${differing.map(({ name }) => name).join(", ")}.
        </p>
        <${Command} text="npx millrace topics plan" />
      </div>`
    }
    <div class="row end">
      <${Field} label="Name"
        ><input
          type="search"
          value=${text}
          onInput=${(event) => go(linkTo("topics", { text: event.target.value }), { replace: true })}
      /><//>
    </div>
    <section class="card">
      ${
        shown.length === 0
          ? html`<${Empty} title=${topics.length === 0 ? "No topic is declared" : `No topic has ${text} in its name`}>
              ${
                topics.length === 0
                  ? html`<p>A projection declares what it reads and publishes: <code>Topic.events</code>.</p>`
                  : html`<p><a href=${linkTo("topics")}>All topics</a></p>`
              }
            <//>`
          : html`<${Table}
              stacks
              caption="Topics"
              rows=${shown}
              columns=${columnsOf(kinds, rates)}
              keyOf=${(one) => one.name}
            />`
      }
    </section>
    <${Command} text="npx millrace topics list" />`
}

const kindTexts = {
  events: "events",
  lookup: "lookup",
  derived: "derived",
  aggregate: "aggregate",
  undeclared: "not declared"
}
const Topics = ({ application, found: { log, topics }, name, query }) => {
  const reading = useMemo(
    () => ({
      at: Date.now(),
      counters: Object.fromEntries(
        topics.flatMap((topic) => [
          [topic.name, endOf(topic)],
          ...topic.partitions.map(({ end, partition }) => [`${topic.name} ${partition}`, end])
        ])
      )
    }),
    [topics]
  )
  const rates = useRates([reading]).last
  const kinds = new Map(
    application.topics.map((one) => [one.name, one.dead_letters ? "dead letters" : kindTexts[one.kind]])
  )
  const topic = topics.find((one) => one.name === name)
  if (topic !== undefined) return html`<${One} key=${name} topic=${topic} kind=${kinds.get(name)} rates=${rates} />`
  if (name !== undefined)
    return html`<${Empty} title=${`There is no topic ${name}`}><a href=${linkTo("topics")}>All topics</a><//>`
  return html`<${All} log=${log} topics=${topics} kinds=${kinds} rates=${rates} query=${query} />`
}

export default ({ path: [name], query }) => {
  const list = useGet("/v1/operations/topics", { every: 3_000 })
  const application = useGet("/v1/operations/application")
  return html`<header class="head">
      <h1>${name === undefined ? "Topics" : html`<a href=${linkTo("topics")}>Topics</a> / ${name}`}</h1>
    </header>
    <${Loaded} of=${application.data === undefined ? application : list}>
      ${(found) => html`<${Topics} application=${application.data} found=${found} name=${name} query=${query} />`}
    <//>`
}
