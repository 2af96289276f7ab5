// The overview: what comes in and goes out, where it waits, what is wrong, and the command that fixes it.
import { useGet } from "../lib/api.js"
import { counted, duration, number } from "../lib/format.js"
import { html } from "../lib/html.js"
import { lastOf, useRates } from "../lib/rates.js"
import { linkTo } from "../lib/router.js"
import { Chart } from "../parts/chart.js"
import { Command, Empty, Figure, Loaded, Table, Tag, Time } from "../parts/common.js"

const sum = (values) => values.reduce((total, value) => total + value, 0)
const oldest = (ages) =>
  ages.reduce((found, age) => (age === null || age === undefined ? found : Math.max(found ?? 0, age)), undefined)
const ends = ({ partitions }) => sum(partitions.map(({ end }) => end))

/** The counters whose rates are shown, from the status and the topics. */
const countersOf = (status, topics) =>
  status === undefined || topics === undefined
    ? undefined
    : {
        in: sum(topics.filter(({ written_by: by }) => by.length === 0 || by.includes("commands")).map(ends)),
        processed: sum(status.projections.filter(({ mode }) => mode === "live").map(({ position }) => position)),
        out: sum(topics.filter(({ written_by: by }) => by.length > 0 && !by.includes("commands")).map(ends))
      }

/** A command in the text of an advice, if it has one. */
const commandIn = (advice) => /(?:npx )?(millrace [a-z][^;,]*)/.exec(advice ?? "")?.[1]

const Problems = ({ problems }) =>
  html`<section class="card">
    <h2>${problems.length === 1 ? "A problem" : `${number(problems.length)} problems`}</h2>
    ${problems.slice(0, 20).map(({ message, try: advice, what }) => {
      const command = commandIn(advice)
      return html`<div class="problem">
        <p><strong>${what}</strong>: ${message}</p>
        ${advice && html`<p>What to do: ${advice}</p>`} ${command && html`<${Command} text=${`npx ${command}`} />`}
      </div>`
    })}
  </section>`

/** The projections, with what each has still to do: the records that wait, and the age of the oldest. */
const byProjection = (rows) => {
  const found = new Map()
  for (const row of rows.filter(({ mode, removed }) => mode === "live" && !removed)) {
    const one = found.get(row.name) ?? { name: row.name, version: row.version, lag: 0, ages: [], halted: 0, waiting: 0 }
    one.lag += row.lag ?? 0
    one.ages.push(row.oldest_ms)
    one.halted += row.halted === null ? 0 : 1
    one.waiting += row.waiting === null ? 0 : 1
    found.set(row.name, one)
  }
  return [...found.values()]
}
const columns = [
  {
    name: "name",
    label: "projection",
    cell: ({ name, version }) =>
      html`<a href=${linkTo(["versions", name])}>${name}</a> <span class="quiet">version ${version}</span>`
  },
  { name: "lag", label: "records waiting", numeric: true, cell: ({ lag }) => number(lag) },
  { name: "oldest", label: "oldest waits", numeric: true, cell: ({ ages }) => duration(oldest(ages)) },
  {
    name: "state",
    cell: ({ halted, waiting }) =>
      halted > 0
        ? html`<${Tag} kind="bad">${counted(halted, "partition")} halted<//>`
        : waiting > 0
          ? html`<${Tag} kind="warn">${counted(waiting, "partition")} waiting<//>`
          : html`<${Tag} kind="good">running<//>`
  }
]

const Alerts = () => {
  const page = useGet("/v1/views/alerts?order=occurred_at.desc&limit=8", { every: 2_000 })
  if (page.error?.status === 404) return null
  return html`<section class="card">
    <div class="row spread">
      <h2>Newest alerts</h2>
      <a href=${linkTo("live", { topic: "alerts.v1" })}>As they are made</a>
    </div>
    <${Loaded} of=${page}>
      ${({ rows }) =>
        rows.length === 0
          ? html`<${Empty} title="No alert yet"
              ><p>An alert appears when an event's score is above its threshold.</p><//
            >`
          : html`<${Table}
              caption="Newest alerts"
              rows=${rows}
              keyOf=${({ alert_id: id }) => id}
              columns=${[
                { name: "entity_id", label: "entity" },
                { name: "score", numeric: true, cell: ({ score }) => number(score) },
                { name: "threshold", numeric: true, cell: ({ threshold }) => number(threshold) },
                { name: "segment" },
                { name: "occurred_at", label: "happened", cell: ({ occurred_at: at }) => html`<${Time} at=${at} />` }
              ]}
            />`}
    <//>
  </section>`
}

/** For how long the oldest of what waits does so. */
const ageNote = (rows) => {
  const age = oldest(rows.map((one) => one.oldest_ms))
  return age === undefined ? "nothing waits" : `the oldest for ${duration(age)}`
}
const Figures = ({ found, live, rates }) => {
  const { dead_letters: ofProjections, parked_messages: ofRelays, relays, timers } = found
  const waiting = sum(live.map(({ lag }) => lag ?? 0))
  const toPublish = sum(relays.map(({ lag }) => lag ?? 0))
  return html`<div class="figures">
    <${Figure} label="Events in" value=${lastOf(rates.series.in)} unit="a second" href=${linkTo("topics")} />
    <${Figure} label="Processed" value=${lastOf(rates.series.processed)} unit="a second" href=${linkTo("pipeline")} />
    <${Figure} label="Published" value=${lastOf(rates.series.out)} unit="a second" href=${linkTo("pipeline")} />
    <${Figure}
      label="Not processed yet"
      value=${waiting}
      unit=${waiting === 1 ? "record" : "records"}
      note=${ageNote(live)}
      kind=${waiting > 10_000 ? "warn" : ""}
    />
    <${Figure}
      label="Not published yet"
      value=${toPublish}
      unit=${toPublish === 1 ? "message" : "messages"}
      note=${ageNote(relays)}
    />
    <${Figure}
      label="Dead letters"
      value=${ofProjections + ofRelays}
      href=${linkTo("dead-letters")}
      kind=${ofProjections + ofRelays > 0 ? "warn" : ""}
      note="open"
    />
    ${timers && html`<${Figure} label="Timers" value=${timers.waiting + timers.due} note=${`${number(timers.due)} due, ${number(timers.failing)} failing`} kind=${timers.failing > 0 ? "warn" : ""} />`}
  </div>`
}
const Rates = ({ rates }) =>
  html`<section class="card">
    <h2>Events a second</h2>
    <${Chart}
      times=${rates.times}
      series=${[
        { label: "in", values: rates.series.in ?? [] },
        { label: "processed", values: rates.series.processed ?? [] },
        { label: "published", values: rates.series.out ?? [] }
      ]}
      summary=${`In the last four minutes; now ${number(lastOf(rates.series.in))} in, ${number(lastOf(rates.series.processed))} processed and ${number(lastOf(rates.series.out))} published a second`}
    />
  </section>`

export default () => {
  const status = useGet("/v1/operations/status", { every: 2_000, accept: [503] })
  const topicList = useGet("/v1/operations/topics", { every: 2_000 })
  const rates = useRates(status.data, countersOf(status.data, topicList.data?.topics))
  const hasAlerts = topicList.data?.topics.some(({ name }) => name === "alerts.v1")
  return html`<header class="head"><h1>Overview</h1></header>
    <${Loaded} of=${status}>
      ${(found) => {
        const live = found.projections.filter(({ mode, removed }) => mode === "live" && !removed)
        const problems = found.problems ?? []
        return html`<p class="lead">
            ${
              found.healthy
                ? html`<${Tag} kind="good">healthy<//> Events come in, projections turn them into tables and messages,
                    and relays publish these.`
                : html`<${Tag} kind="bad">unhealthy<//> ${counted(problems.length, "problem")} below, each with what to
                    do.`
            }
          </p>
          ${problems.length > 0 && html`<${Problems} problems=${problems} />`}
          <${Figures} found=${found} live=${live} rates=${rates} />
          <${Rates} rates=${rates} />
          <div class="columns">
            <section class="card">
              <h2>Projections</h2>
              <${Table}
                caption="Projections"
                columns=${columns}
                rows=${byProjection(found.projections)}
                keyOf=${({ name }) => name}
              />
            </section>
            ${hasAlerts && html`<${Alerts} />`}
          </div>
          <${Command} text="npx millrace status --watch" />`
      }}
    <//>`
}
