// The SQL types of columns, by what their values are. Pure.

export const isTime = (type = "") => type.startsWith("timestamp")
export const isNumber = (type) => /^(smallint|integer|bigint|real|double precision|numeric)/.test(type)
export const isJson = (type) => type === "jsonb" || type === "json"
