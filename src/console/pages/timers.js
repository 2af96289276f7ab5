// Timers: commands of policies and projections that wait for their time, are due, or fail; they are tried again or given up.
import { send, useGet, withQuery } from "../lib/api.js"
import { counted, duration, number } from "../lib/format.js"
import { html } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { Action, Command, Data, Empty, Field, Figure, Json, Loaded, Table, Tag, Time } from "../parts/common.js"

const path = "/v1/operations/timers"
const kinds = { waiting: "quiet", due: "warn", failing: "bad" }
/** `in 5 min`, `2 h ago`. */
const when = (at) => {
  const ms = Date.parse(at) - Date.now()
  return ms >= 0 ? `in ${duration(ms)}` : `${duration(-ms)} ago`
}
/** Retries or discards a timer, as the command does. */
const decision = (verb, { aggregate, id, projection, stream }, onDone) => ({
  label: verb === "retry" ? "Try it now" : "Discard",
  danger: verb === "discard",
  describe:
    verb === "retry"
      ? `The command for ${aggregate} ${stream} that ${projection} sent is tried now, and those that wait behind it follow.`
      : `The command for ${aggregate} ${stream} that ${projection} sent is deleted. It is never executed.`,
  command: `npx millrace timers ${verb} ${id}`,
  act: async () => {
    const { body } = await send("POST", `${path}/${verb}`, { body: { ids: [id] } })
    return verb === "retry"
      ? `${counted(body.count, "command")} ${body.count === 1 ? "is" : "are"} tried now.`
      : `${counted(body.count, "timer")} discarded.`
  },
  onDone
})

const columnsOf = (reload) => [
  {
    name: "due",
    cell: ({ due }) => html`<${Time} at=${due} /> <span class="quiet">${when(due)}</span>`
  },
  {
    name: "state",
    cell: ({ failures, next_try: next, reason, state }) =>
      html`<${Tag} kind=${kinds[state]}>${state}<//
        >${reason !== null && html` ${reason} <span class="quiet">${counted(failures, "failure")}; the next try is <${Time} at=${next} /></span>`}`
  },
  {
    name: "of",
    cell: ({ projection, timer }) =>
      html`<a href=${linkTo(["versions", projection])}>${projection}</a
        >${timer === null ? html` <span class="quiet">a command</span>` : ` ${timer}`}`
  },
  {
    name: "stream",
    label: "for",
    cell: ({ aggregate, stream }) =>
      html`<a href=${linkTo(["aggregates", aggregate, stream])}>${aggregate} <${Data} value=${stream} /></a>`
  },
  {
    name: "command",
    cell: ({ command }) =>
      html`<details>
        <summary>${String(command.type)}</summary>
        <${Json} value=${command} />
      </details>`
  },
  {
    name: "actions",
    label: "what to do",
    cell: (timer) =>
      html`<div class="row">
        ${timer.state === "failing" && html`<${Action} ...${decision("retry", timer, reload)} />`}
        <${Action} ...${decision("discard", timer, reload)} />
      </div>`
  }
]

const Counts = ({ counts }) =>
  html`<div class="figures">
    <${Figure} label="Waiting" value=${counts.waiting} note="for their time" />
    <${Figure}
      label="Due"
      value=${counts.due}
      note=${counts.oldest_ms === null ? "none" : `the oldest for ${duration(counts.oldest_ms)}`}
    />
    <${Figure}
      label="Failing"
      value=${counts.failing}
      kind=${counts.failing > 0 ? "bad" : ""}
      note=${counts.failing > 0 ? "tried again, at least every 5 min" : "none"}
    />
  </div>`

export default ({ query }) => {
  const { aggregate, failing, limit = "50", projection } = query
  const application = useGet("/v1/operations/application")
  const list = useGet(withQuery(path, { aggregate, failing, limit, projection }), { every: 3_000 })
  const set = (changes) => go(linkTo("timers", { ...query, ...changes }), { replace: true })
  const senders = (application.data?.projections ?? []).filter(({ sends_to: sends }) => sends.length > 0)
  const hasFilter = aggregate !== undefined || failing !== undefined || projection !== undefined
  const choice = (label, name, values) =>
    html`<${Field} label=${label}
      ><select value=${query[name] ?? ""} onChange=${(event) => set({ [name]: event.target.value })}>
        <option value="">all</option>
        ${values.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
      </select><//
    >`
  return html`<header class="head"><h1>Timers</h1></header>
    <p class="lead">Commands that policies send, now or at a time: what is due, of which stream, and what fails.</p>
    ${list.data && html`<${Counts} counts=${list.data.counts} />`}
    <div class="row end">
      ${choice(
        "Policy",
        "projection",
        senders.map(({ name }) => name)
      )}
      ${choice("Aggregate", "aggregate", [...new Set(senders.flatMap(({ sends_to: sends }) => sends))])}
      <label class="check"
        ><input
          type="checkbox"
          checked=${failing === "true"}
          onChange=${(event) => set({ failing: event.target.checked ? "true" : undefined })}
        />Failing alone</label
      >
    </div>
    <${Loaded} of=${list}>
      ${({ command, timers }) =>
        html`${
            timers.length === 0
              ? html`<${Empty} title=${hasFilter ? "No timer fits" : "No timer or command waits"}>
                  ${
                    hasFilter
                      ? html`<p><a href=${linkTo("timers")}>Show all</a></p>`
                      : html`<p>
                          ${senders.length > 0 ? `What ${senders.map(({ name }) => name).join(", ")} ${senders.length === 1 ? "sends" : "send"} is here until it is executed.` : "A policy sets timers with out.timer: see Policy.make."}
                        </p>`
                  }
                <//>`
              : html`<section class="card">
                    <${Table}
                      stacks
                      caption="Timers, the next one first"
                      rows=${timers}
                      columns=${columnsOf(list.reload)}
                      keyOf=${({ id }) => id}
                    />
                  </section>
                  ${
                    timers.length === Number(limit) &&
                    Number(limit) < 1_000 &&
                    html`<p class="row">
                      <span class="quiet">The next ${number(timers.length)} are shown.</span>
                      <button type="button" onClick=${() => set({ limit: String(Math.min(1_000, Number(limit) * 4)) })}>
                        Show more
                      </button>
                    </p>`
                  }`
          } <${Command} text=${`npx ${command}`} />`}
    <//>`
}
