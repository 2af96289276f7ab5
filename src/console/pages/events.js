// The records of a topic: a page of a partition with headers, decoded and raw, and the command that sends one again.
import { useGet, withQuery } from "../lib/api.js"
import { number, shellWord } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Dialog, Empty, Field, Json, Loaded, Table, Time } from "../parts/common.js"

const typeOf = (value) =>
  typeof value === "object" && value !== null && typeof value.type === "string" ? value.type : ""

const Details = ({ onClose, record, topic }) => {
  const { headers, value, ...rest } = record
  const send = `curl -X POST ${location.origin}/v1/events?topic=${encodeURIComponent(topic)} -H 'content-type: application/json' -d ${shellWord(JSON.stringify(value))}`
  return html`<${Dialog}
    title=${`${topic}, partition ${record.partition}, position ${record.position}`}
    onClose=${onClose}
  >
    <dl class="pairs">
      ${Object.entries(rest).map(
        ([name, one]) =>
          html`<dt key=${name}>${name}</dt>
            <dd>${name.endsWith("_time") || name.endsWith("_at") ? html`<${Time} at=${one} />` : String(one)}</dd>`
      )}
      ${Object.entries(headers ?? {}).map(
        ([name, one]) =>
          html`<dt key=${`h ${name}`}>header ${name}</dt>
            <dd>${one}</dd>`
      )}
    </dl>
    <${Json} value=${value} />
    <p class="quiet">Send it again, as a new record:</p>
    <${Command} text=${send} />
  <//>`
}
const Page = ({ query, topic }) => {
  const { from, partition = "0", tenant, type } = query
  const [opened, setOpened] = useState()
  const path = withQuery(`/v1/topics/${encodeURIComponent(topic)}/records`, { partition, from, tenant, limit: "100" })
  const page = useGet(path, from === undefined ? { every: 5_000 } : {})
  const set = (changes) => go(linkTo("events", { topic, ...query, ...changes }))
  return html`<section class="card">
      <${Loaded} of=${page}>
        ${({ end, next, records, start }) => {
          const rows = records.filter(({ value }) => type === undefined || typeOf(value) === type)
          return html`<p class="quiet">
              Positions ${number(start)} to ${number(end)}; ${number(end - start)} records may be there.
            </p>
            ${
              rows.length === 0
                ? html`<${Empty} title="No records here"
                    ><p>
                      ${end === start ? "The partition is empty." : "None of this page is of that type or tenant."}
                    </p><//
                  >`
                : html`<${Table}
                    caption=${`Records of ${topic}`}
                    rows=${rows}
                    keyOf=${({ position }) => position}
                    columns=${[
                      {
                        name: "position",
                        numeric: true,
                        cell: (record) =>
                          html`<button type="button" class="small" onClick=${() => setOpened(record)}>
                            ${record.position}
                          </button>`
                      },
                      { name: "type", cell: ({ value }) => typeOf(value) },
                      { name: "key", cell: ({ key }) => (key === null ? html`<span class="quiet">none</span>` : key) },
                      { name: "tenant", cell: ({ tenant: one }) => one ?? "" },
                      {
                        name: "event_time",
                        label: "event time",
                        cell: (record) => html`<${Time} at=${record.event_time} />`
                      },
                      {
                        name: "value",
                        cell: ({ value }) =>
                          html`<code>${value === null ? "deleted" : JSON.stringify(value).slice(0, 200)}</code>`
                      }
                    ]}
                  />`
            }
            <div class="row">
              <button
                type="button"
                disabled=${Number(from ?? start) <= start}
                onClick=${() => set({ from: String(Math.max(start, Number(from ?? start) - 100)) })}
              >
                Earlier
              </button>
              <button type="button" disabled=${next >= end} onClick=${() => set({ from: String(next) })}>Later</button>
              <button type="button" onClick=${() => set({ from: String(Math.max(start, end - 100)) })}>Newest</button>
            </div>`
        }}
      <//>
    </section>
    <${Command} label="request" text=${`curl ${shellWord(location.origin + path)}`} />
    ${opened && html`<${Details} topic=${topic} record=${opened} onClose=${() => setOpened(undefined)} />`}`
}

export default ({ query }) => {
  const topics = useGet("/v1/operations/topics")
  return html`<header class="head"><h1>Events</h1></header>
    <${Loaded} of=${topics}>
      ${({ topics: all }) => {
        const found =
          all.find(({ name }) => name === query.topic) ?? all.find(({ written_by: by }) => by.length === 0) ?? all[0]
        if (found === undefined)
          return html`<${Empty} title="The application has no topics"
            ><p>A projection reads one, and an aggregate has one: declare it in the application.</p><//
          >`
        const set = (changes) => go(linkTo("events", { topic: found.name, ...query, ...changes }))
        const field = (name, label) =>
          html`<${Field} label=${label}
            ><input
              value=${query[name] ?? ""}
              onChange=${(event) => set({ [name]: event.target.value.trim(), from: name === "from" ? event.target.value.trim() : "" })}
          /><//>`
        return html`<div class="row end">
            <${Field} label="Topic"
              ><select value=${found.name} onChange=${(event) => go(linkTo("events", { topic: event.target.value }))}>
                ${all.map(({ name }) => html`<option key=${name}>${name}</option>`)}
              </select><//
            >
            <${Field} label="Partition"
              ><select
                value=${query.partition ?? "0"}
                onChange=${(event) => set({ partition: event.target.value, from: "" })}
              >
                ${found.partitions.map(({ partition }) => html`<option key=${partition}>${partition}</option>`)}
              </select><//
            >
            ${field("from", "From position")} ${field("type", "Type")} ${field("tenant", "Tenant")}
          </div>
          <${Page} key=${found.name} topic=${found.name} query=${query} />`
      }}
    <//>`
}
