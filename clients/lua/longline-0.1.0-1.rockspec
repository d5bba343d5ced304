rockspec_format = "3.0"
package = "longline"
version = "0.1.0-1"

-- The client is part of longline's repository: run `luarocks make` in this folder.
source = {
  url = ".",
}

description = {
  summary = "Client of longline, a webhook inbox: push updates and long-poll them",
  detailed = "Publishes to channels and follows them, in order and across restarts. Over copas, or in Garry's Mod.",
  license = "MIT",
}

dependencies = {
  "lua >= 5.1",
  "copas >= 1.2",
  "luasocket >= 3.0",
  "luasec >= 1.0",
  "lua-cjson >= 2.1",
}

build = {
  type = "builtin",
  modules = {
    longline = "longline.lua",
  },
}
