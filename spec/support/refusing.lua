-- What a program says on a host whose KVM has less than this one's (spec/hv_kvm/refuse_preload.c).
local build = require "spec.support.build"
local scratch = require "spec.support.scratch"

local refusing = {}

--- What `expression` (Lua over core) comes to there: its values, in words.
function refusing.run(refused, expression)
	local script = ("local core = require 'supermachine.core' local a, b, c = %s print(a, b, c)"):format(expression)
	return scratch.run(("ASAN_OPTIONS=verify_asan_link_order=0 SUPERMACHINE_REFUSE='%s' "
		.. "LD_PRELOAD='%s/spec/hv_kvm/refuse_preload.so' '%s/supermachine' -e \"%s\""):format(
		refused, build.dir, build.dir, script))
end

return refusing
