// Package camserve is the Go client of camserve: what is on an image, and a heatmap of why.
//
// It is a thin layer over the generated stubs of package camservev1, whose messages it takes and returns. A Client
// signs calls in, tries them again where that may help and is safe, and makes every failure an *Error. Its stubs
// (client.Jobs, client.Webhooks, …) do that too; its methods are what takes more than one call.
package camserve
